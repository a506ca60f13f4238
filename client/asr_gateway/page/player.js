// Plays what was heard: a file as it is, or what the microphone gave.

const MAX_KEPT_BYTES = 200_000_000; // of a microphone: half an hour at 48 kHz

export class Player {
  #audio = new Audio();
  #url = null;
  #frame = 0;

  /** onMove(ms or null): where it plays, as often as the screen is drawn; null: nowhere. */
  constructor(onMove) {
    this.onMove = onMove;
    this.#audio.onended = this.#audio.onpause = () => this.#halted();
  }

  /** blob: of audio, or null for none. */
  load(blob) {
    this.stop();
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = blob && URL.createObjectURL(blob);
    if (blob) this.#audio.src = this.#url;
    else this.#audio.removeAttribute("src");
  }

  get isLoaded() {
    return this.#url !== null;
  }

  get isPlaying() {
    return Boolean(this.#frame);
  }

  get hasEnded() {
    return this.#audio.ended;
  }

  get positionMs() {
    return this.#audio.currentTime * 1000;
  }

  /** Returns whether the browser plays it. */
  async play(fromMs) {
    try {
      this.#audio.currentTime = fromMs / 1000;
      await this.#audio.play();
    } catch {
      return false;
    }
    cancelAnimationFrame(this.#frame);
    const follow = () => {
      this.#frame = requestAnimationFrame(follow);
      this.onMove(this.positionMs);
    };
    follow();
    return true;
  }

  stop() {
    this.#audio.pause();
    this.#halted();
  }

  #halted() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.onMove(null);
  }
}

/** Keeps the packets of a microphone, in this page's memory alone. */
export class Kept {
  #packets = [];
  #bytes = 0;
  #isTooLong = false;

  constructor(sampleRate) {
    this.sampleRate = sampleRate;
  }

  add(pcm) {
    this.#bytes += pcm.byteLength;
    this.#isTooLong ||= this.#bytes > MAX_KEPT_BYTES;
    if (this.#isTooLong) this.#packets = [];
    else this.#packets.push(pcm);
  }

  /** A WAV file; null where there was nothing, or too much to keep. */
  toBlob() {
    if (!this.#packets.length) return null;
    const header = new DataView(new ArrayBuffer(44));
    const ascii = (at, text) => [...text].forEach((c, i) => header.setUint8(at + i, c.charCodeAt(0)));
    ascii(0, "RIFF");
    header.setUint32(4, 36 + this.#bytes, true);
    ascii(8, "WAVEfmt ");
    header.setUint32(16, 16, true); // bytes of the format
    header.setUint16(20, 1, true); // PCM
    header.setUint16(22, 1, true); // channels
    header.setUint32(24, this.sampleRate, true);
    header.setUint32(28, this.sampleRate * 2, true); // bytes a second
    header.setUint16(32, 2, true); // bytes a frame
    header.setUint16(34, 16, true); // bits a sample
    ascii(36, "data");
    header.setUint32(40, this.#bytes, true);
    return new Blob([header, ...this.#packets], { type: "audio/wav" });
  }
}
