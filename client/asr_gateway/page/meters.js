// The readings beside the button: time, level, lag.

import { clock } from "./transcript.js";

const SILENT_DB = -60;
const FALL_DB = 1.5; // a packet: the bar falls slowly, so that it can be seen
const BAR_MS = 500; // of the longest lag in it
const NUM_BARS = 60;
const FULL_LAG_MS = 500; // of the highest bar, unless one is higher

/** When audio was captured, by its place in the stream. */
export class CaptureTimes {
  #packets = []; // {endMs, atMs}
  #endMs = 0;

  add(durationMs, atMs) {
    this.#endMs += durationMs;
    this.#packets.push({ endMs: this.#endMs, atMs });
  }

  get endMs() {
    return this.#endMs;
  }

  /** When audio up to ms was captured. Then packets before are forgotten. */
  capturedAtMs(ms) {
    while (this.#packets.length > 1 && this.#packets[0].endMs <= ms - 1) this.#packets.shift();
    return this.#packets[0].atMs - Math.max(0, this.#packets[0].endMs - ms);
  }

  /** When the packet behind ms was captured; null: there is none. */
  nextAtMs(ms) {
    return this.#packets.find((packet) => packet.endMs > ms + 1)?.atMs ?? null;
  }
}

export class Meters {
  #elements;
  #lags = [];
  #db = SILENT_DB;

  /** elements: {time, level, ring, lag, lags, lagLabel} */
  constructor(elements) {
    this.#elements = elements;
    this.#level(SILENT_DB);
  }

  clear(isFast) {
    this.#lags = [];
    this.#elements.lagLabel.textContent = isFast ? "speed" : "lag";
    this.#elements.lag.textContent = "–";
    this.time(0);
    this.#drawLags();
  }

  time(ms) {
    this.#elements.time.textContent = clock(ms);
  }

  /** pcm: Int16Array. Returns its level in dB of full scale. */
  hear(pcm) {
    let sum = 0;
    for (const sample of pcm) sum += sample * sample;
    const db = pcm.length && sum ? 10 * Math.log10(sum / pcm.length / 32768 ** 2) : SILENT_DB;
    this.#level(Math.max(db, this.#db - FALL_DB, SILENT_DB));
    return db;
  }

  rest() {
    this.#level(SILENT_DB);
  }

  /** ms: of a result, or that one is waited for.  nowMs: by Date.now() */
  lag(ms, nowMs) {
    const bar = Math.floor(nowMs / BAR_MS);
    const last = this.#lags.at(-1);
    if (last?.bar === bar) last.ms = Math.max(last.ms, ms);
    else this.#lags.push({ bar, ms: Math.max(0, ms) });
    const longest = Math.max(...this.#lags.slice(-2).map((lag) => lag.ms));
    this.#elements.lag.textContent =
      longest < 995 ? `${Math.round(longest / 10) * 10} ms` : `${(longest / 1000).toFixed(1)} s`;
    this.#drawLags();
  }

  /** times: as fast as speech. */
  speed(times) {
    this.#elements.lag.textContent = `${times.toFixed(times < 10 ? 1 : 0)} ×`;
  }

  /** Of the longest lags of each half second, in ms; null where there were none. */
  get middleLag() {
    const sorted = this.#lags.map((lag) => lag.ms).sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] ?? null;
  }

  #level(db) {
    const { level, ring } = this.#elements;
    this.#db = Math.min(0, db);
    const filled = (1 - this.#db / SILENT_DB).toFixed(3);
    for (const element of [level, ring]) element.style.setProperty("--filled", filled);
    level.setAttribute("aria-valuenow", Math.round(this.#db));
    const text = this.#db <= SILENT_DB ? "silence" : `${Math.round(this.#db)} dB`;
    level.setAttribute("aria-valuetext", text);
  }

  #drawLags() {
    const { lags: canvas } = this.#elements;
    const style = getComputedStyle(canvas);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    [canvas.width, canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    context.fillStyle = style.getPropertyValue("--wave");
    const shown = this.#lags.slice(-NUM_BARS);
    const full = Math.max(FULL_LAG_MS, ...shown.map((lag) => lag.ms));
    shown.forEach(({ ms }, i) => {
      const high = Math.max(1, (ms / full) * height);
      context.fillRect((i * width) / NUM_BARS, height - high, width / NUM_BARS - 0.5, high);
    });
  }
}
