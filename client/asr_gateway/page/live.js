// One session from its start to its last word: a source, the gateway, and what is shown of both.

import { CaptureTimes } from "./meters.js";
import { Kept } from "./player.js";
import * as problems from "./problems.js";
import { Session } from "./session.js";
import { Transcript } from "./transcript.js";

const LOOK_MS = 250; // how often it is looked whether results are waited for
const QUIET_DB = -55; // room noise of a live microphone is above
const QUIET_MS = 6000; // that long: somebody should be told

export class Live {
  transcript = new Transcript();
  state = "starting"; // then live, finishing, over
  #times = new CaptureTimes();
  #session;
  #kept = null;
  #processedMs = 0;
  #looking = 0; // timer
  #beganMs = 0;
  #loudAtMs = 0; // of the stream, where it last was

  /**
   * source: of sources.js.  view: {transcript, waveform, meters}.
   * on: {opened(), change(), offer(offer), problem(problem), spoken(text), over(blob)}
   */
  constructor(source, view, on) {
    Object.assign(this, { source, view, on });
    this.isFast = source.isRecording && !source.player;
  }

  /** options: of the session, but for the sample rate.  Throws a Problem. */
  async begin(options, rates) {
    await this.source.open(rates);
    if (this.state !== "starting") return this.source.stop(); // it was cancelled meanwhile
    this.options = { ...options, sample_rate: this.source.sampleRate, progress: true };
    this.on.opened();
    this.view.transcript.clear();
    this.view.waveform.clear(this.source.sampleRate);
    this.view.meters.clear(this.isFast);
    if (!this.source.isRecording) this.#kept = new Kept(this.source.sampleRate);
    this.#session = new Session(this.options, {
      ready: (offer) => this.on.offer(offer),
      result: (result) => this.#result(result),
      end: () => this.#over(),
      problem: (problem) => this.#fail(problem),
    });
    this.#beganMs = Date.now();
    this.#looking = setInterval(() => this.#look(), LOOK_MS);
    this.#become("live");
    const on = {
      packet: (packet) => this.#packet(packet),
      gone: (problem) => {
        if (problem) this.on.problem(problem);
        this.stop();
      },
    };
    this.source.start(on, () => this.#session.backlog);
  }

  /** Give up what is not under way. */
  cancel() {
    this.state = "over";
  }

  /** No more audio; the rest of the text still comes. */
  async stop() {
    if (this.state !== "live") return;
    clearInterval(this.#looking);
    this.#become("finishing");
    await this.source.stop();
    this.view.meters.rest();
    this.#session.end();
  }

  setLanguage(language) {
    if (this.state === "live") this.#session.setLanguage(language);
  }

  #packet({ pcm, atMs }) {
    if (this.state === "over" || !pcm.length) return;
    this.#session.send(pcm);
    this.#kept?.add(pcm);
    this.#times.add((pcm.length / this.source.sampleRate) * 1000, atMs);
    this.view.waveform.add(pcm);
    this.view.meters.time(this.#times.endMs);
    const db = this.view.meters.hear(pcm);
    if (db > QUIET_DB || this.source.isRecording) this.#loudAtMs = this.#times.endMs;
    if (this.#times.endMs - this.#loudAtMs > QUIET_MS) {
      this.on.problem(problems.nothingHeard());
      this.#loudAtMs = Infinity; // once is enough
    }
  }

  #result(result) {
    const ms = result.audio_processed_ms;
    this.#processedMs = ms ?? this.#processedMs;
    if (ms && this.isFast) {
      this.view.meters.speed(ms / Math.max(1, Date.now() - this.#beganMs));
    } else if (ms && this.state === "live") {
      this.view.meters.lag(Date.now() - this.#times.capturedAtMs(ms), Date.now());
    }
    const changed = this.transcript.add(result);
    this.view.transcript.update(changed);
    this.view.waveform.addWords((result.segments ?? []).flatMap((piece) => piece.words ?? []));
    for (const utterance of changed) if (utterance.isFinal) this.on.spoken(utterance.text.trim());
  }

  /** Audio whose result has not come yet lags already. */
  #look() {
    const atMs = this.isFast ? null : this.#times.nextAtMs(this.#processedMs);
    if (atMs !== null) this.view.meters.lag(Date.now() - atMs, Date.now());
  }

  #fail(problem) {
    this.on.problem(problem);
    this.#over();
  }

  #over() {
    if (this.state === "over") return;
    if (this.state === "live") this.source.stop();
    clearInterval(this.#looking);
    this.view.meters.rest();
    this.#become("over");
    this.on.over(this.#kept?.toBlob() ?? null);
  }

  #become(state) {
    this.state = state;
    this.on.change();
  }
}
