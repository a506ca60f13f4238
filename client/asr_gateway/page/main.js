// The page: its buttons and keys, and what they set in motion.

import { setUpDrop } from "./drop.js";
import { copyText, saveAs } from "./formats.js";
import { Live } from "./live.js";
import { Meters } from "./meters.js";
import { Notice } from "./notice.js";
import { Player } from "./player.js";
import * as problems from "./problems.js";
import { fetchOffer, key } from "./session.js";
import { Settings } from "./settings.js";
import { Microphone, Recording } from "./sources.js";
import { setUpTheme } from "./theme.js";
import { clock } from "./transcript.js";
import { languageName, TranscriptView } from "./transcript_view.js";
import { Waveform } from "./waveform.js";

const ASK_AGAIN_MS = 5000;
const LEAD_MS = 300; // a word is placed where the model knew it, a little after it began
const COPIED_MS = 2000;
const TITLE = document.title;
const LABELS = {
  idle: "Start", starting: "Cancel", live: "Stop", finishing: "Finishing", playing: "Stop",
};
const SPACE_IS_THEIRS = "input, textarea, select, button, a, [role=button]";

const $ = (id) => document.getElementById(id);
let offer = null; // of the server; null: not known, or it is away
let live = null; // the session, also once it is over
let earlier = null; // the one before, while the next is not under way
let asking = 0; // timer
let lastFile = null;
let shown = "";

const notice = new Notice();
const settings = new Settings($("options"), (language) => live?.setLanguage(language));
const view = {
  meters: new Meters({
    time: $("time"), level: $("level"), ring: $("start"),
    lag: $("lag"), lags: $("lags"), lagLabel: $("lag-label"),
  }),
  transcript: new TranscriptView($("transcript"), $("to-newest"), { pick: playWord, look: lookAtWord }),
  waveform: new Waveform($("tape"), {
    pick: (word, ms) => (word ? playWord(word) : play(ms)),
    look: (word, box) => {
      view.transcript.mark(word, "seen");
      showDetails(word, box);
    },
  }),
};
const player = new Player((ms) => {
  const word = view.waveform.moveCursor(state() === "playing" ? ms : null);
  view.transcript.mark(word, "heard");
  show();
});

// Sessions

function state() {
  if (live && live.state !== "over") return live.state;
  return player.isPlaying ? "playing" : "idle";
}

async function begin(source) {
  if (!["idle", "playing"].includes(state())) return;
  player.stop();
  notice.hide();
  earlier = live;
  const next = (live = new Live(source, view, {
    opened: () => {
      player.load(source.isRecording ? source.file : null);
      lastFile = source.isRecording ? source.file : lastFile;
    },
    change: show,
    offer: showOffer,
    problem: showProblem,
    spoken: announce,
    over: ended,
  }));
  show();
  try {
    await knowOffer();
    await next.begin(settings.begin(), offer.sample_rates);
  } catch (problem) {
    if (live !== next) return; // it was cancelled
    giveUp();
    showProblem(problem);
  }
}

/** Back to the session before one that is not under way. */
function giveUp() {
  live.cancel();
  live = earlier;
  settings.ended();
  show();
}

function startOrStop() {
  const now = state();
  if (now === "playing") player.stop();
  else if (now === "idle") begin(new Microphone());
  else if (now === "starting") giveUp();
  else live.stop();
}

function beginFile(file) {
  if (["starting", "live", "finishing"].includes(state())) return showProblem(problems.busy());
  begin(new Recording(file, settings.values.pace === "aloud" ? player : null));
}

/** blob: of what the microphone gave, null where a file was heard or nothing. */
function ended(blob) {
  settings.ended();
  if (!live.source.isRecording) player.load(blob);
  view.transcript.canPlay = player.isLoaded;
  const isEmpty = !live.transcript.utterances.length;
  view.transcript.close(isEmpty && notice.problem ? null : summary());
  show();
}

function summary() {
  const { transcript, source, options } = live;
  const parts = [source.name, clock(transcript.audioProcessedMs ?? 0)];
  parts.push(`${transcript.words.length} words`, `latency ${options.latency_ms} ms`);
  if (view.meters.middleLag !== null) parts.push(`median lag ${Math.round(view.meters.middleLag)} ms`);
  return parts.join(" · ");
}

// The server

async function knowOffer() {
  if (!offer) showOffer(await fetchOffer());
}

function showOffer(newest) {
  offer = newest;
  $("served").textContent = `${offer.model}, ready`;
  $("key-form").hidden = true;
  settings.show(offer);
}

async function ask() {
  clearTimeout(asking);
  try {
    await knowOffer();
    if (!notice.problem || notice.problem.isAway || notice.problem.needsKey) notice.hide();
  } catch (problem) {
    showProblem(problem);
  }
}

function showProblem(problem) {
  notice.show(problem);
  if (problem.needsKey || problem.isAway || problem.isLoss) {
    offer = null;
    $("served").textContent = problem.needsKey ? "needs a key" : "not connected";
  }
  if (problem.isAway) {
    clearTimeout(asking);
    asking = setTimeout(ask, ASK_AGAIN_MS);
  }
  if (problem.needsKey) {
    $("key-form").hidden = false;
    $("key").focus();
  }
}

// Words

async function play(ms) {
  if (["idle", "playing"].includes(state()) && player.isLoaded) await player.play(Math.max(0, ms));
}

function playWord(word) {
  play(word.start_ms - LEAD_MS);
}

function lookAtWord(word, element) {
  view.waveform.mark(word);
  if (word) element.setAttribute("aria-describedby", "details");
  else element.removeAttribute("aria-describedby");
  showDetails(word, element.getBoundingClientRect());
}

/** box: in the window, of what is looked at. */
function showDetails(word, box) {
  const details = $("details");
  details.hidden = !word;
  if (!word) return;
  const sure = word.confidence == null ? "" : `, ${Math.round(word.confidence * 100)} % sure`;
  details.textContent = `${clock(word.start_ms, 2)} to ${clock(word.end_ms, 2)}${sure}`;
  const { offsetWidth: width, offsetHeight: height } = details;
  const left = Math.min(Math.max(8, box.left), document.documentElement.clientWidth - width - 8);
  details.style.left = `${left}px`;
  details.style.top = `${box.top > height + 8 ? box.top - height - 6 : box.bottom + 6}px`;
}

// What is to be seen and heard

function announce(text) {
  const line = document.createElement("p"); // a new one, as the same text may come twice
  line.textContent = text;
  $("spoken").replaceChildren(line);
}

function show() {
  const now = state();
  const hasText = Boolean(live?.transcript.utterances.length);
  if (shown === `${now} ${hasText} ${live?.source.name}`) return;
  shown = `${now} ${hasText} ${live?.source.name}`;
  const isFree = now === "idle" || now === "playing";
  document.body.dataset.state = now;
  document.title = now === "live" ? `● ${TITLE}` : TITLE;
  $("start-label").textContent = LABELS[now];
  $("start").disabled = now === "finishing";
  $("choose").disabled = $("again").disabled = !isFree;
  $("again").hidden = !lastFile;
  $("tools").hidden = !hasText;
  $("source").textContent = live?.source.name ?? "";
}

function toggle(button, what) {
  const opens = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", opens);
  what.classList.toggle("open", opens);
  return opens;
}

// Buttons and keys

$("start").onclick = startOrStop;
$("choose").onclick = () => $("file").click();
$("again").onclick = () => beginFile(lastFile);
$("file").onchange = () => {
  if ($("file").files[0]) beginFile($("file").files[0]);
  $("file").value = "";
};
$("lag-what").onclick = () => toggle($("lag-what"), $("lag-means"));
$("settings-toggle").onclick = () => {
  if (toggle($("settings-toggle"), $("settings"))) $("language").focus();
};
$("copy").onclick = async () => {
  await copyText(live.transcript.text.trim());
  $("copy").focus();
  $("copy").textContent = "Copied";
  announce("Copied");
  setTimeout(() => ($("copy").textContent = "Copy"), COPIED_MS);
};
for (const button of document.querySelectorAll("[data-save]")) {
  button.onclick = () => {
    const named = live.source.isRecording ? live.source.name.replace(/\.[^.]*$/, "") : "transcript";
    saveAs(button.dataset.save, live.transcript.toObject(), named);
  };
}
$("key-form").onsubmit = (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  ask();
};
notice.onAgain = ask;
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    player.stop();
    showDetails(null);
    if ($("settings").classList.contains("open")) {
      toggle($("settings-toggle"), $("settings"));
      $("settings-toggle").focus();
    }
  }
  const isPlain = !(event.ctrlKey || event.altKey || event.metaKey || event.repeat);
  if (event.key === " " && isPlain && !event.target.closest(SPACE_IS_THEIRS)) {
    event.preventDefault();
    startOrStop();
  }
});
setUpDrop($("drop"), beginFile);
setUpTheme($("theme"), () => view.waveform.draw());
ask();
