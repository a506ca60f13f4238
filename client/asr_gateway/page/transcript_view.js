// The transcript on the page: a paragraph for each utterance, an element for each word.

import { clock, places, tier } from "./transcript.js";

const NEAR_END_PX = 48; // a reader this near the end follows what comes
const DOUBT = ["doubt-much", "doubt-some", ""]; // classes by tier
const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: Infinity, ArrowUp: -Infinity };

const languageNames = new Intl.DisplayNames(["en"], {
  type: "language",
  languageDisplay: "standard",
  style: "short",
});

/** en-GB -> English (UK) */
export function languageName(tag) {
  try {
    return languageNames.of(tag);
  } catch {
    return tag;
  }
}

export class TranscriptView {
  #box;
  #toNewest;
  #on;
  #invitation; // what is there before any text
  #rows = []; // of utterances: {item, time, language, paragraph, pending, placed, numWords}
  #elements = new Map(); // word -> its element
  #words = new WeakMap(); // element -> its word
  #current = null; // the word that the Tab key comes to
  #isFollowing = true;
  #isGrowing = false;
  #canPlay = false;

  /** on: {pick(word), look(word or null, its element)} */
  constructor(box, toNewest, on) {
    this.#box = box;
    this.#toNewest = toNewest;
    this.#on = on;
    this.#invitation = [...box.children];
    box.addEventListener("scroll", () => this.#follow(this.#isAtEnd()), { passive: true });
    box.addEventListener("click", ({ target }) => this.#pick(target));
    box.addEventListener("keydown", (event) => this.#key(event));
    for (const [event, looks] of [["pointerover", true], ["focusin", true], ["pointerout", false],
      ["focusout", false]]) {
      box.addEventListener(event, ({ target }) => this.#look(target, looks));
    }
    toNewest.onclick = () => {
      this.#follow(true);
      box.focus({ preventScroll: true });
    };
    new ResizeObserver(() => this.#keepUp()).observe(box);
  }

  clear() {
    this.#rows = [];
    this.#elements.clear();
    this.#current = null;
    this.#box.replaceChildren();
    this.canPlay = false;
    this.#isGrowing = true;
    this.#follow(true);
  }

  /** Whether words can be played: then they are buttons. */
  set canPlay(canPlay) {
    this.#canPlay = canPlay;
    this.#box.classList.toggle("playable", canPlay);
    this.#makeCurrent(this.#current ?? this.#box.querySelector(".word"));
  }

  /** Show what was added to utterances, which are those of a Transcript. */
  update(utterances) {
    for (const utterance of utterances) this.#show(utterance);
    this.#keepUp();
  }

  /** Nothing more comes. line: to show below the text; null: there was none. */
  close(line) {
    const note = Object.assign(document.createElement("p"), { className: "colophon" });
    note.textContent = line;
    if (line === null) this.#box.replaceChildren(...this.#invitation);
    else this.#box.append(note);
    if (line !== null) this.#keepUp();
    this.#isGrowing = false;
    this.#toNewest.hidden = true;
  }

  /** Mark the word that is being played or looked at elsewhere; null: none. */
  mark(word, kind) {
    this.#box.querySelector(`.${kind}`)?.classList.remove(kind);
    this.#elements.get(word)?.classList.add(kind);
  }

  #show(utterance) {
    const row = (this.#rows[utterance.number] ??= this.#newRow());
    const text = utterance.text.trimStart();
    for (const { word, begin, end } of places(text, utterance.words.slice(row.numWords), row.placed)) {
      row.pending.before(text.slice(row.placed, begin), this.#newWord(word));
      row.placed = end;
    }
    row.numWords = utterance.words.length;
    row.pending.textContent = text.slice(row.placed);
    row.pending.classList.toggle("settled", utterance.isFinal);
    row.time.textContent = clock(utterance.words[0]?.start_ms ?? utterance.startMs ?? 0);
    if (utterance.language) {
      row.language.textContent = languageName(utterance.language);
      row.language.title = utterance.language;
      row.paragraph.lang = utterance.language;
    }
  }

  #newRow() {
    const make = (name, className = "") => Object.assign(document.createElement(name), { className });
    const row = { item: make("article", "utterance"), time: make("time"), placed: 0, numWords: 0 };
    row.language = make("span", "language");
    row.paragraph = make("p");
    row.paragraph.dir = "auto";
    row.pending = make("span", "pending");
    row.paragraph.append(row.pending);
    const margin = make("div", "margin");
    margin.append(row.time, row.language);
    row.item.append(margin, row.paragraph);
    this.#box.append(row.item);
    return row;
  }

  #newWord(word) {
    const element = document.createElement("span");
    element.className = `word ${DOUBT[tier(word)]}`.trim();
    element.style.setProperty("--doubt", (1 - (word.confidence ?? 1)).toFixed(2));
    element.dataset.tier = tier(word);
    element.tabIndex = -1;
    element.textContent = word.text;
    this.#elements.set(word, element);
    this.#words.set(element, word);
    if (!this.#current) this.#makeCurrent(element);
    return element;
  }

  /** One word at a time is in the order of the Tab key, and a button: text stays text to readers. */
  #makeCurrent(element) {
    this.#current?.setAttribute("tabindex", "-1");
    this.#current?.removeAttribute("role");
    this.#current = element;
    if (!element) return;
    element.tabIndex = 0;
    element.setAttribute("role", this.#canPlay ? "button" : "note");
  }

  #pick(target) {
    const word = this.#words.get(target);
    if (!word || !getSelection().isCollapsed) return;
    this.#makeCurrent(target);
    if (this.#canPlay) this.#on.pick(word);
  }

  #key(event) {
    const word = this.#words.get(event.target);
    if (!word) return;
    if (event.key === "Enter" || (event.key === " " && this.#canPlay)) {
      this.#pick(event.target);
    } else if (event.key in STEPS) {
      this.#step(event.target, STEPS[event.key]);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** by: words, or to the first word of the next or previous utterance. */
  #step(from, by) {
    const all = [...this.#box.querySelectorAll(".word")];
    let to = all[all.indexOf(from) + by];
    if (!Number.isFinite(by)) {
      const rows = this.#rows.filter((row) => row?.paragraph.querySelector(".word"));
      const at = rows.findIndex((row) => row.paragraph.contains(from)) + Math.sign(by);
      to = rows[at]?.paragraph.querySelector(".word");
    }
    if (!to) return;
    this.#makeCurrent(to);
    to.focus();
    to.scrollIntoView({ block: "nearest" });
  }

  #look(target, looks) {
    const word = this.#words.get(target);
    if (word) this.#on.look(looks ? word : null, target);
  }

  #isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.#box;
    return scrollTop + clientHeight >= scrollHeight - NEAR_END_PX;
  }

  #keepUp() {
    if (this.#isFollowing && this.#isGrowing) this.#follow(true);
  }

  #follow(isFollowing) {
    this.#isFollowing = isFollowing;
    this.#toNewest.hidden = isFollowing || !this.#isGrowing;
    if (isFollowing) this.#box.scrollTop = this.#box.scrollHeight;
  }
}
