// What was heard, drawn: a bar for each 31 ms, and the words beneath at their times.

import { clock, tier } from "./transcript.js";

const BAR_PX = 3; // with the gap behind it
const BARS_PER_S = 32;
const PX_PER_MS = (BAR_PX * BARS_PER_S) / 1000; // 96 px a second
const AXIS_PX = 16;
const LABEL_PX = 15; // a row of words
const MARK_PX = [1, 2, 3]; // thickness of a word's line by its tier
const LOUD = 0.35; // RMS of a bar of full height: of speech, hardly any is louder
const CALM_MS = 500; // between two drawings where motion is not wanted

export class Waveform {
  #tape;
  #length;
  #canvas;
  #on;
  #bars = []; // sum of squares of the samples in each, of full scale 1
  #words = [];
  #numSamples = 0; // heard
  cursorMs = null; // where it plays
  marked = null; // the word that is emphasized
  #isFollowing = true;
  #isDue = false;
  #drawnMs = 0;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** on: {pick(word or null, ms), look(word or null, its box in the window)} */
  constructor(tape, on) {
    this.#tape = tape;
    this.#length = tape.querySelector("div");
    this.#canvas = tape.querySelector("canvas");
    this.#on = on;
    tape.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#canvas.addEventListener("pointermove", (event) => this.#look(event));
    this.#canvas.addEventListener("pointerleave", () => this.#on.look(null));
    this.#canvas.addEventListener("click", (event) => {
      const ms = this.#msAt(event);
      this.#on.pick(this.#wordAt(ms), ms);
    });
    new ResizeObserver(() => this.draw()).observe(tape);
  }

  clear(sampleRate) {
    Object.assign(this, { sampleRate, cursorMs: null, marked: null });
    this.#bars = [];
    this.#words = [];
    this.#numSamples = 0;
    this.#isFollowing = true;
    this.#tape.scrollLeft = 0;
    this.draw();
  }

  /** pcm: Int16Array, what was heard next. */
  add(pcm) {
    for (const sample of pcm) {
      const bar = Math.floor((this.#numSamples++ * BARS_PER_S) / this.sampleRate);
      this.#bars[bar] = (this.#bars[bar] ?? 0) + (sample / 32768) ** 2;
    }
    this.draw();
  }

  addWords(words) {
    this.#words.push(...words);
    this.draw();
  }

  /** Show where it plays, and the word there, which is returned. */
  moveCursor(ms) {
    this.cursorMs = ms;
    if (ms !== null) {
      const x = ms * PX_PER_MS - this.#tape.scrollLeft;
      const width = this.#tape.clientWidth;
      if (x < 0 || x > width * 0.9) this.#tape.scrollLeft += x - width * 0.1;
    }
    this.draw();
    return ms === null ? null : this.#wordAt(ms);
  }

  /** Emphasize a word; null: none. */
  mark(word) {
    this.marked = word;
    this.draw();
  }

  /** Draw with the next frame. */
  draw() {
    if (this.#isDue) return;
    this.#isDue = true;
    const waitMs = this.#calm.matches ? Math.max(0, this.#drawnMs + CALM_MS - Date.now()) : 0;
    setTimeout(() => requestAnimationFrame(() => this.#draw()), waitMs);
  }

  get #heardMs() {
    return (this.#numSamples / this.sampleRate) * 1000 || 0;
  }

  #scrolled() {
    const { scrollLeft, clientWidth, scrollWidth } = this.#tape;
    this.#isFollowing = scrollLeft + clientWidth >= scrollWidth - 8;
    this.draw();
  }

  #msAt(event) {
    const left = this.#canvas.getBoundingClientRect().left;
    return (event.clientX - left + this.#tape.scrollLeft) / PX_PER_MS;
  }

  #wordAt(ms) {
    return this.#words.find((word) => word.start_ms <= ms && ms < word.end_ms) ?? null;
  }

  #look(event) {
    const word = this.#wordAt(this.#msAt(event));
    if (!word) return this.#on.look(null);
    const box = this.#canvas.getBoundingClientRect();
    const left = box.left + word.start_ms * PX_PER_MS - this.#tape.scrollLeft;
    const width = (word.end_ms - word.start_ms) * PX_PER_MS;
    this.#on.look(word, new DOMRect(left, box.top, width, box.height));
  }

  #draw() {
    this.#isDue = false;
    this.#drawnMs = Date.now();
    const tape = this.#tape;
    if (!tape.clientWidth) return;
    this.#length.style.width = `${Math.max(tape.clientWidth, this.#heardMs * PX_PER_MS)}px`;
    if (this.#isFollowing && this.cursorMs === null) tape.scrollLeft = tape.scrollWidth;
    const style = getComputedStyle(tape);
    const color = (name) => style.getPropertyValue(`--${name}`);
    const height = this.#canvas.clientHeight;
    const context = this.#fit(tape.clientWidth, height);
    context.font = `12px ${style.fontFamily}`;
    const view = { context, color, left: tape.scrollLeft, width: tape.clientWidth, height };
    this.#drawAxis(view);
    this.#drawBars(view);
    this.#drawWords(view);
    if (this.cursorMs !== null) {
      context.fillStyle = color("accent");
      context.fillRect(this.cursorMs * PX_PER_MS - view.left, AXIS_PX, 2, height - AXIS_PX);
    }
  }

  /** The canvas in device pixels, cleared; its context in those of the page. */
  #fit(width, height) {
    const ratio = devicePixelRatio;
    const canvas = this.#canvas;
    canvas.style.width = `${width}px`;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  #drawAxis({ context, color, left, width, height }) {
    const firstS = Math.floor(left / PX_PER_MS / 1000);
    for (let s = firstS; s * 1000 * PX_PER_MS < left + width; s++) {
      const x = s * 1000 * PX_PER_MS - left;
      context.fillStyle = color("line");
      context.fillRect(x, AXIS_PX, 1, height - AXIS_PX);
      context.fillStyle = color("muted");
      context.fillText(clock(s * 1000), x, 11);
    }
  }

  #drawBars({ context, color, left, width, height }) {
    const tall = height - AXIS_PX - 2 * LABEL_PX - 10;
    const middle = AXIS_PX + tall / 2;
    context.fillStyle = color("wave");
    const first = Math.floor(left / BAR_PX);
    const last = Math.min(this.#bars.length, Math.ceil((left + width) / BAR_PX));
    for (let i = first; i < last; i++) {
      const rms = Math.sqrt(((this.#bars[i] ?? 0) * BARS_PER_S) / this.sampleRate);
      const high = Math.max(1, Math.min(1, (rms / LOUD) ** 0.6) * tall); // quiet speech is seen too
      context.fillRect(i * BAR_PX - left, middle - high / 2, BAR_PX - 1, high);
    }
  }

  #drawWords({ context, color, left, width, height }) {
    const markY = height - 2 * LABEL_PX - 6;
    const rowEnds = [-Infinity, -Infinity]; // where the last word in a row ends
    const leftMs = left / PX_PER_MS - 2000; // a label reaches beyond its word
    for (const word of this.#words) {
      if (word.end_ms < leftMs) continue;
      const x = word.start_ms * PX_PER_MS - left;
      if (x > width) break;
      const long = Math.max(3, (word.end_ms - word.start_ms) * PX_PER_MS);
      const isMarked = word === this.marked;
      context.fillStyle = color(isMarked ? "accent" : "ink");
      context.fillRect(x, markY, long, MARK_PX[2 - tier(word)]);
      const row = rowEnds.findIndex((end) => end + 6 <= x);
      if (row < 0) continue;
      rowEnds[row] = x + context.measureText(word.text).width;
      context.fillText(word.text, x, markY + 4 + (row + 1) * LABEL_PX - 3);
    }
  }
}
