// What a session said so far, as its results add to it. Nothing of the page here.

export class Transcript {
  constructor() {
    this.text = ""; // as it came, never revised
    this.language = null;
    this.audioProcessedMs = null;
    this.utterances = []; // {number, text, words, language, isFinal, startMs, endMs, reason}
  }

  /** Add a result of the server. Returns the utterances that it changed. */
  add(result) {
    this.text += result.text ?? "";
    this.language = result.language ?? this.language;
    this.audioProcessedMs = result.audio_processed_ms ?? this.audioProcessedMs;
    return (result.segments ?? []).map((piece) => this.#extend(piece));
  }

  get words() {
    return this.utterances.flatMap((utterance) => utterance.words);
  }

  /** As the library's Transcript is written in JSON. */
  toObject() {
    return {
      text: this.text,
      words: this.words,
      language: this.language,
      audio_processed_ms: this.audioProcessedMs,
      segments: this.utterances.filter((u) => u.isFinal).map((u) => ({
        segment: u.number,
        text: u.text.trim(),
        words: u.words,
        language: u.language,
        is_final: true,
        start_ms: u.startMs,
        end_ms: u.endMs,
        reason: u.reason,
      })),
    };
  }

  #extend(piece) {
    let utterance = this.utterances.at(-1);
    if (utterance?.number !== piece.segment) {
      utterance = { number: piece.segment, text: "", words: [] };
      this.utterances.push(utterance);
    }
    utterance.text += piece.text;
    utterance.words.push(...(piece.words ?? []));
    utterance.language = piece.language ?? utterance.language ?? null;
    utterance.isFinal = piece.is_final;
    utterance.startMs = piece.start_ms ?? utterance.words[0]?.start_ms ?? null;
    utterance.endMs = piece.end_ms ?? null;
    utterance.reason = piece.reason ?? null;
    return utterance;
  }
}

/**
 * Where words stand in a text: [{word, begin, end}], begin and end in characters from `from` on.
 * A word that is spelled otherwise in the text has no place.
 */
export function places(text, words, from = 0) {
  const found = [];
  for (const word of words) {
    const begin = text.indexOf(word.text, from);
    if (begin >= 0) {
      from = begin + word.text.length;
      found.push({ word, begin, end: from });
    }
  }
  return found;
}

/** How sure the model is of a word: 2 sure, 1 less sure, 0 unsure; as the legend says. */
export function tier(word) {
  if (word.confidence == null || word.confidence >= 0.85) return 2;
  return word.confidence >= 0.6 ? 1 : 0;
}

/** 0:07.28, or with hours; without `decimals` 0:07. */
export function clock(ms, decimals = 0) {
  const units = 10 ** decimals;
  const total = Math.floor((ms / 1000) * units + 1e-6);
  const seconds = Math.floor(total / units);
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (n) => String(n).padStart(2, "0");
  const fraction = decimals ? `.${String(total % units).padStart(decimals, "0")}` : "";
  return `${h ? `${h}:${two(m)}` : m}:${two(s)}${fraction}`;
}
