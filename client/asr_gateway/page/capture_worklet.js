// Collects what a microphone says into packets of 16-bit samples, mixed to one channel.

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.packet = new Int16Array(processorOptions.packetSamples);
    this.filled = 0;
    this.isOver = false;
    this.port.onmessage = () => {
      this.isOver = true;
      this.post(true);
    };
  }

  process([channels]) {
    const numSamples = this.isOver ? 0 : (channels[0]?.length ?? 0);
    for (let i = 0; i < numSamples; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const sample = Math.round((sum / channels.length) * 32768);
      this.packet[this.filled++] = Math.max(-32768, Math.min(32767, sample));
      if (this.filled === this.packet.length) this.post(false);
    }
    return !this.isOver;
  }

  post(isLast) {
    // the time is taken here: the page may be busy when the packet arrives
    const pcm = this.packet.slice(0, this.filled);
    this.port.postMessage({ pcm, atMs: Date.now(), isLast }, [pcm.buffer]);
    this.filled = 0;
  }
}

registerProcessor("capture", Capture);
