// Transcripts as text, JSON, SubRip and WebVTT, written as the Python client writes them.

const MAX_LINE_CHARS = 42; // what subtitle guidelines give a line
const MAX_LINES = 2;
const MAX_CUE_MS = 7000;
const PAUSE_MS = 700; // a silence this long starts a new cue
const MIN_CUE_MS = 80; // one frame of the encoder: a cue is never of no length
const SENTENCE_ENDS = [".", "?", "!", "…", "。", "？", "！", "؟", "।"];
const CLOSING = /["'”’»)\]]+$/;

const FORMATS = {
  txt: { type: "text/plain", write: (transcript) => `${transcript.text.trim()}\n` },
  srt: { type: "application/x-subrip", write: toSrt },
  vtt: { type: "text/vtt", write: toVtt },
  json: { type: "application/json", write: (t) => `${JSON.stringify(t, null, 2)}\n` },
};

/** format: one of FORMATS.  transcript: as Transcript.toObject gives it. */
export function saveAs(format, transcript, name) {
  const { type, write } = FORMATS[format];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(transcript)], { type: `${type};charset=utf-8` }));
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // over plain http there is no clipboard but this one
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function toSrt(transcript) {
  return cues(transcript.words)
    .map((cue, i) => `${i + 1}\n${span(cue, ",")}\n${cue.lines.join("\n")}\n`)
    .join("\n");
}

function toVtt(transcript) {
  const blocks = cues(transcript.words)
    .map((cue) => `\n${span(cue, ".")}\n${escaped(cue.lines.join("\n"))}\n`);
  return `WEBVTT\n${blocks.join("")}`;
}

/**
 * Words -> cues in time order, of at most 2 lines of 42 characters and 7 s, none overlapping.
 * A cue ends at a pause, at the end of a sentence, or where it is full.
 */
function cues(words) {
  const groups = [];
  for (const word of shortWords(words)) {
    if (groups.length && fits(groups.at(-1), word)) groups.at(-1).push(word);
    else groups.push([word]);
  }
  const shown = [];
  for (const group of groups) {
    const startMs = Math.max(group[0].startMs, shown.at(-1)?.endMs ?? 0);
    const endMs = Math.max(group.at(-1).endMs, startMs + MIN_CUE_MS);
    shown.push({ startMs, endMs: Math.min(endMs, startMs + MAX_CUE_MS), lines: wrapped(group) });
  }
  return shown;
}

/** Words without spaces around; one that is longer than a line is cut, its time shared out. */
function shortWords(words) {
  return words.flatMap((word) => {
    const chars = [...word.text.trim().replace(/\s+/g, " ")];
    const count = Math.ceil(chars.length / MAX_LINE_CHARS);
    const stepMs = (word.end_ms - word.start_ms) / Math.max(count, 1);
    return Array.from({ length: count }, (_, i) => ({
      text: chars.slice(i * MAX_LINE_CHARS, (i + 1) * MAX_LINE_CHARS).join(""),
      startMs: word.start_ms + Math.round(i * stepMs),
      endMs: word.start_ms + Math.round((i + 1) * stepMs),
    }));
  });
}

function fits(group, word) {
  const last = group.at(-1);
  const bare = last.text.replace(CLOSING, "");
  return (
    word.startMs - last.endMs < PAUSE_MS &&
    word.endMs - group[0].startMs <= MAX_CUE_MS &&
    !SENTENCE_ENDS.some((end) => bare.endsWith(end)) &&
    wrapped([...group, word]).length <= MAX_LINES
  );
}

function wrapped(group) {
  const lines = [""];
  for (const word of group) {
    const longer = `${lines.at(-1)} ${word.text}`.trimStart();
    if ([...longer].length <= MAX_LINE_CHARS) lines[lines.length - 1] = longer;
    else lines.push(word.text);
  }
  return lines;
}

const span = (cue, decimal) => `${time(cue.startMs, decimal)} --> ${time(cue.endMs, decimal)}`;

const escaped = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** HH:MM:SS.mmm with the format's decimal sign; hours grow beyond two digits where they must. */
function time(ms, decimal) {
  const padded = (value, digits = 2) => String(Math.floor(value)).padStart(digits, "0");
  const units = [padded(ms / 3_600_000), padded((ms / 60_000) % 60), padded((ms / 1000) % 60)];
  return `${units.join(":")}${decimal}${padded(ms % 1000, 3)}`;
}
