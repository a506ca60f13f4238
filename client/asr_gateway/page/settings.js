// What a session is asked for, as chosen on the page.

import { languageName } from "./transcript_view.js";

const STORED = "asr-settings"; // for this tab alone, as phrases may be private
const AUTO = "auto";
const DEFAULT_LATENCY_MS = 320;
const WAITS = {
  80: "Words come at once, with the most mistakes.",
  160: "Quick, with a few mistakes more.",
  320: "A good middle.",
  560: "Unhurried, with fewer mistakes.",
  1120: "Words come a second late, with the fewest mistakes.",
};

export class Settings {
  #form;
  #asked = null; // what the running session was asked for, null while none runs

  /** onLanguage(language): it was changed. */
  constructor(form, onLanguage) {
    this.#form = form;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => this.#changed());
    form.language.addEventListener("change", () => onLanguage(form.language.value));
  }

  /** offer: of the server. The choices stay as far as it has them. */
  show({ languages = [AUTO], latencies_ms = [] }) {
    const stored = JSON.parse(sessionStorage.getItem(STORED) ?? "{}");
    const form = this.#form;
    const now = this.#isShown ? this.values : stored;
    const named = languages.filter((tag) => tag !== AUTO).map((tag) => [languageName(tag), tag]);
    const options = named.sort().map(([name, tag]) => new Option(`${name} – ${tag}`, tag));
    form.language.replaceChildren(new Option("Whichever is spoken", AUTO), ...options);
    form.language.value = languages.includes(now.language) ? now.language : AUTO;
    this.#showLatencies(latencies_ms, now.latency_ms ?? DEFAULT_LATENCY_MS);
    form.endpoint.value = now.endpoint_ms ?? form.endpoint.value;
    form.phrases.value = now.phrases ?? form.phrases.value;
    form.pace.value = now.pace ?? form.pace.value;
    this.#changed();
  }

  get values() {
    const form = this.#form;
    return {
      language: form.language.value,
      latency_ms: Number(form.latency?.value ?? DEFAULT_LATENCY_MS),
      endpoint_ms: Number(form.endpoint.value),
      phrases: form.phrases.value,
      pace: form.pace.value,
    };
  }

  /** The options of a session that begins now; until `ended` what is changed is for the next. */
  begin() {
    const { pace: _, phrases, ...options } = (this.#asked = this.values);
    this.#changed();
    const listed = phrases.split(/[\n;]/).map((phrase) => phrase.trim()).filter(Boolean);
    return listed.length ? { ...options, phrases: listed.join(";") } : options;
  }

  ended() {
    this.#asked = null;
    this.#changed();
  }

  get #isShown() {
    return Boolean(this.#form.latency);
  }

  #showLatencies(latencies, wanted) {
    const steps = latencies.map((ms) => {
      const input = Object.assign(document.createElement("input"), {
        type: "radio", name: "latency", value: ms, checked: ms === wanted,
      });
      const label = document.createElement("label");
      const number = Object.assign(document.createElement("span"), { textContent: ms });
      const unit = Object.assign(document.createElement("span"), {
        className: "unseen", textContent: " milliseconds",
      });
      label.append(input, number, unit);
      return label;
    });
    document.getElementById("latency").replaceChildren(...steps);
    if (steps.length && !latencies.includes(wanted)) steps[0].firstChild.checked = true;
  }

  #changed() {
    const values = this.values;
    sessionStorage.setItem(STORED, JSON.stringify(values));
    const waits = WAITS[values.latency_ms] ?? "";
    document.getElementById("latency-hint").textContent =
      `The model hears ${values.latency_ms} ms before it settles on words. ${waits}`;
    document.getElementById("lag-wait").textContent = `up to ${values.latency_ms} ms`;
    for (const later of this.#form.querySelectorAll("[data-later]")) {
      const name = later.dataset.later;
      const isLater = this.#asked && this.#asked[name] !== values[name];
      later.textContent = isLater ? "next session" : "";
    }
  }
}
