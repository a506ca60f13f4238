// Where audio comes from. Each source has a sampleRate once it is open, then gives packets
// {pcm: Int16Array, atMs: when its last sample was captured, by Date.now()}.

import * as problems from "./problems.js";

const PACKET_S = 0.04;
const FAST_PACKET_S = 0.4;
const MODEL_RATE = 16_000; // Hz
const MAX_BACKLOG = 64_000; // bytes, 2 s: what a recording may be ahead of the server's reading
const LOOK_MS = 20;

export class Microphone {
  name = "Microphone";
  isRecording = false;
  #media;
  #context;
  #node;
  #lock; // a phone's screen stays on, or it would stop

  /** rates: what the server takes, in Hz.  Throws a Problem. */
  async open(rates) {
    try {
      this.#media = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
      });
      this.#context = new AudioContext();
      if (!rates.includes(this.#context.sampleRate)) {
        await this.#context.close();
        this.#context = new AudioContext({ sampleRate: MODEL_RATE });
      }
      this.sampleRate = this.#context.sampleRate;
      await this.#context.audioWorklet.addModule(new URL("capture_worklet.js", import.meta.url));
    } catch (error) {
      this.#close();
      throw problems.ofMicrophone(error);
    }
  }

  /** on: {packet(packet), gone()}; gone: nothing more comes, the text is to end there. */
  start(on) {
    const packetSamples = Math.round(this.sampleRate * PACKET_S);
    this.#node = new AudioWorkletNode(this.#context, "capture", {
      processorOptions: { packetSamples },
    });
    this.#node.port.onmessage = ({ data }) => on.packet(data);
    this.#media.getAudioTracks()[0].onended = () => on.gone(problems.microphoneGone());
    this.#context.createMediaStreamSource(this.#media).connect(this.#node);
    this.#node.connect(this.#context.destination); // silence; without it some browsers do not run it
    this.#context.resume();
    this.#lock = navigator.wakeLock?.request("screen").catch(() => null);
  }

  /** Returns once the last packet was given. */
  async stop() {
    if (this.#node) {
      const deliver = this.#node.port.onmessage;
      const last = new Promise((resolve) => {
        this.#node.port.onmessage = (message) => {
          deliver(message);
          if (message.data.isLast) resolve();
        };
      });
      this.#node.port.postMessage("stop");
      await Promise.race([last, wait(500)]); // a context that the system stopped says nothing
    }
    this.#close();
  }

  #close() {
    for (const track of this.#media?.getTracks() ?? []) track.stop();
    this.#context?.close().catch(() => {});
    this.#lock?.then((lock) => lock?.release());
    this.#node = this.#media = this.#context = this.#lock = undefined;
  }
}

export class Recording {
  isRecording = true;
  sampleRate = MODEL_RATE;
  #isStopped = true;
  #isAloud = false; // the browser plays it

  /** player: it plays while its audio is sent; null: as fast as it goes. */
  constructor(file, player = null) {
    this.file = file;
    this.name = file.name;
    this.player = player;
  }

  async open() {
    const context = new OfflineAudioContext(1, 1, MODEL_RATE); // it decodes to its own rate
    let audio;
    try {
      audio = await context.decodeAudioData(await this.file.arrayBuffer());
    } catch {
      throw problems.unreadable(this.name);
    }
    this.pcm = mixed(audio);
  }

  async start(on, backlog) {
    this.#isStopped = false;
    const samplesDue = this.player ? await this.#playing() : () => this.pcm.length;
    const packetSamples = MODEL_RATE * (this.player ? PACKET_S : FAST_PACKET_S);
    let at = 0;
    while (at < this.pcm.length && !this.#isStopped && !this.#isPaused) {
      const due = samplesDue();
      const whole = due >= this.pcm.length ? due : due - packetSamples; // the last may be shorter
      while (at <= whole && at < this.pcm.length && backlog() < MAX_BACKLOG) {
        const pcm = this.pcm.slice(at, at + packetSamples);
        at += pcm.length;
        on.packet({ pcm, atMs: Date.now() - ((due - at) / MODEL_RATE) * 1000 });
      }
      await wait(LOOK_MS);
    }
    if (!this.#isStopped) on.gone();
  }

  async stop() {
    this.#isStopped = true;
    this.player?.stop();
  }

  /** By the system, or its keys. */
  get #isPaused() {
    return this.#isAloud && !this.player.isPlaying && !this.player.hasEnded;
  }

  /** Returns a function that tells how many samples were played; in silence, where it may not. */
  async #playing() {
    this.#isAloud = await this.player.play(0);
    const beganMs = Date.now();
    return () => {
      if (this.#isAloud && this.player.hasEnded) return this.pcm.length;
      const playedMs = this.#isAloud ? this.player.positionMs : Date.now() - beganMs;
      return Math.min(this.pcm.length, Math.round((playedMs / 1000) * MODEL_RATE));
    };
  }
}

/** All channels of an AudioBuffer as one: Int16Array. */
function mixed(audio) {
  const channels = Array.from({ length: audio.numberOfChannels }, (_, c) => audio.getChannelData(c));
  const pcm = new Int16Array(audio.length);
  for (let i = 0; i < pcm.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i];
    pcm[i] = Math.max(-32768, Math.min(32767, Math.round((sum / channels.length) * 32768)));
  }
  return pcm;
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
