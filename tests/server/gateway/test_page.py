"""The page in Chromium: a microphone, recordings, the keyboard, what goes wrong, accessibility."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from asr_client import formats
from asr_client.results import transcript_from_json
from asr_gateway.access import add_key
from nemotron_asr import load_checkpoint
from server.gateway.conftest import RunningGateway, start_gateway, stop

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.server,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
]

QUIET = (  # it does nothing but what the page asks for
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SAMPLES = Path(__file__).parents[3] / "samples"
PATIENCE_MS = 90_000
LIVE, OVER = "[data-state=live]", "[data-state=idle] .colophon"


@dataclass
class Visit:
    """A page, what it complained of and whom it asked."""

    page: sync_api.Page
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def __post_init__(self):
        def on_console(message) -> None:
            if message.type in ("error", "warning"):
                self.complaints.append(message.text)

        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("websocket", lambda socket: self.hosts.add(urlsplit(socket.url).netloc))

    def text(self) -> str:
        return " ".join(self.page.locator(".utterance p").all_inner_texts())

    def settle(self, **settings: str) -> None:
        """Choose settings: latency, pace (radio buttons); endpoint, language (lists)."""
        for name, value in settings.items():
            if name in ("latency", "pace"):
                self.page.check(f"input[name={name}][value='{value}']")
            else:
                self.page.select_option(f"#{name}", value)

    def drop(self, path: Path) -> None:
        content = base64.b64encode(path.read_bytes()).decode()
        self.page.evaluate(DROP, {"content": content, "name": path.name})

    def saved(self, kind: str) -> str:
        with self.page.expect_download() as download:
            self.page.click(f"[data-save={kind}]")
        return Path(download.value.path()).read_text(encoding="utf-8")


DROP = """async ({content, name}) => {
  const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, {type: "audio/flac"}));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, {dataTransfer, bubbles: true}));
}"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[sync_api.Browser]:
    """Its microphone says pico_us.flac, then nothing."""
    said = tmp_path_factory.mktemp("microphone") / "said.wav"
    audio, rate = soundfile.read(SAMPLES / "pico_us.flac", dtype="int16")
    soundfile.write(said, np.concatenate([audio, np.zeros(20 * rate, np.int16)]), rate)
    microphone = (
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={said}%noloop",
    )  # fmt: skip
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *microphone])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page_gateway(demo_server) -> Iterator[RunningGateway]:
    running = start_gateway(demo_server)
    yield running
    assert stop(running) == 0


@pytest.fixture
def visit(browser, page_gateway):
    """A function: a new visitor, whose tab has nothing stored.  Arguments: of the context."""
    contexts = []

    def new(gateway: RunningGateway = page_gateway, **options) -> Visit:
        contexts.append(browser.new_context(**options))
        visitor = Visit(contexts[-1].new_page())
        visitor.page.goto(gateway.url)
        return visitor

    def ready(gateway: RunningGateway = page_gateway, **options) -> Visit:
        visitor = new(gateway, **options)
        visitor.page.wait_for_selector("input[name=latency]", state="attached")
        return visitor

    ready.before_ready = new
    yield ready
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def library(demo_checkpoint):
    return load_checkpoint(demo_checkpoint)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_what_is_said_to_the_microphone_appears(visit, page_gateway):
    visitor = visit()
    page = visitor.page
    page.keyboard.press("Space")
    page.wait_for_selector(LIVE)
    page.locator(".word").nth(10).wait_for()
    assert re.fullmatch(r"\d+ ms|\d+\.\d s", page.inner_text("#lag"))
    assert page.inner_text("#spoken") in ("", visitor.text())  # utterances, not words
    page.locator(".margin .language").get_by_text("English").first.wait_for()
    page.keyboard.press("Space")
    page.wait_for_selector(OVER)
    reference = words_of((SAMPLES / "pico_us.txt").read_text())
    said = words_of(visitor.text())
    assert sum(word in said for word in reference) > len(reference) / 3  # a small model
    assert words_of(page.inner_text("#spoken"))[-2:] == said[-2:]
    assert page.inner_text("#time") != "0:00"
    assert visitor.complaints == []
    assert visitor.hosts <= {urlsplit(page_gateway.url).netloc, ""}  # "": of blob:


@pytest.mark.parametrize("latency_ms", [80, 1120])
def test_a_dropped_recording_gives_the_librarys_text(visit, library, latency_ms):
    path = SAMPLES / "pico_gb_long.flac"
    audio, _ = soundfile.read(path, dtype="int16")
    expected = library.transcribe([audio], "auto", latency_ms)[0]
    visitor = visit()
    visitor.settle(latency=str(latency_ms), endpoint="0", pace="fast")
    visitor.drop(path)
    visitor.page.wait_for_selector(OVER)
    assert visitor.text() == expected.text
    written = json.loads(visitor.saved("json"))
    places = [(word["text"], word["start_ms"]) for word in written["words"]]
    assert places == [word[:2] for word in expected.words]
    transcript = transcript_from_json(written)
    assert transcript.segments[0].text == transcript.text
    for kind, write in (("txt", "text"), ("srt", "srt"), ("vtt", "vtt")):
        assert visitor.saved(kind) == formats.FORMATS[write](transcript)
    assert visitor.complaints == []


def test_a_recording_is_heard_at_its_pace_then_its_words_play(visit):
    visitor = visit()
    page = visitor.page
    visitor.settle(endpoint="400")
    began = time.monotonic()
    page.set_input_files("#file", SAMPLES / "pico_us.flac")  # of 5.7 s
    page.wait_for_selector(OVER)
    assert time.monotonic() - began > 5.5
    assert page.locator(".utterance").count() > 1
    page.locator(".word").nth(3).click()
    page.wait_for_selector("[data-state=playing]")
    page.wait_for_selector(".word.heard")
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-state=idle]")
    page.keyboard.press("ArrowRight")
    fifth = page.locator(".word").nth(4)
    assert fifth.evaluate("(word) => word === document.activeElement")
    assert re.fullmatch(r"0:\d\d\.\d\d to 0:\d\d\.\d\d, \d+ % sure", page.inner_text("#details"))
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=playing]")
    page.wait_for_selector("[data-state=idle]")  # to its end
    assert visitor.complaints == []


def test_what_cannot_change_in_a_session_is_for_the_next(visit):
    visitor = visit()
    page = visitor.page
    visitor.settle(endpoint="0", pace="fast")
    page.click("#start")
    page.wait_for_selector(LIVE)
    page.locator(".word").nth(1).wait_for()
    visitor.settle(latency="1120", language="de-DE")
    assert page.inner_text("[data-later=latency_ms]") == "next session"
    page.click("#start")
    page.wait_for_selector(OVER)
    assert "latency 320 ms" in page.inner_text(".colophon")
    assert page.inner_text("[data-later=latency_ms]") == ""
    page.fill("#phrases", "Emma\nParis^2")
    page.set_input_files("#file", SAMPLES / "pico_gb_long.flac")
    page.locator(".colophon", has_text="latency 1120 ms").wait_for()
    assert visitor.complaints == []


def test_a_wrong_phrase_is_said_by_the_server(visit):
    visitor = visit()
    visitor.page.fill("#phrases", "...")
    visitor.drop(SAMPLES / "pico_us.flac")
    visitor.page.get_by_role("alert").get_by_text("phrases").wait_for()
    visitor.page.wait_for_selector("[data-state=idle]")


def test_a_gateway_that_goes_away_is_told_of(visit, demo_server):
    gateway = start_gateway(demo_server)
    visitor = visit(gateway)
    page = visitor.page
    page.keyboard.press("Space")
    page.locator(".word").nth(2).wait_for()
    gateway.process.kill()
    gateway.process.wait()
    alert = page.get_by_role("alert")
    alert.get_by_text("connection to the gateway broke").wait_for()
    page.wait_for_selector(OVER)
    assert page.locator(".word").count() > 2  # what was heard stays
    page.keyboard.press("Space")
    alert.get_by_text("The gateway does not answer").wait_for()
    page.wait_for_selector("[data-state=idle]")


def test_a_key_is_asked_for_and_a_full_gateway_says_so(visit, demo_server, tmp_path):
    key = add_key(tmp_path / "keys.json", "one", max_sessions=1, requests_per_minute=None)
    gateway = start_gateway(demo_server, "--keys", str(tmp_path / "keys.json"))
    try:
        visitor = visit.before_ready(gateway)
        page = visitor.page
        for attempt in ("wrong", key):
            page.get_by_label("API key").fill(attempt)
            page.keyboard.press("Enter")
            page.get_by_text("does not know that API key").wait_for(
                state="visible" if attempt == "wrong" else "hidden"
            )
        page.wait_for_selector("input[name=latency]")
        assert page.is_hidden("#key-form")
        good = {"Authorization": f"Bearer {key}"}
        with gateway.socket("/v1/stream", additional_headers=good) as socket:
            socket.send("{}")
            socket.recv()
            visitor.drop(SAMPLES / "pico_us.flac")
            page.get_by_role("alert").get_by_text("As many sessions are open").wait_for()
            socket.send('{"type": "end"}')
            for _ in socket:
                pass
        visitor.settle(pace="fast")
        visitor.drop(SAMPLES / "pico_us.flac")
        page.wait_for_selector(OVER)
        assert page.is_hidden("#notice")
        assert page.evaluate("() => JSON.stringify(localStorage)").find(key) < 0
    finally:
        stop(gateway)


def test_a_refused_microphone_is_told_of(visit):
    visitor = visit()
    visitor.page.evaluate("""() => {
      navigator.mediaDevices.getUserMedia = async () => {
        throw new DOMException("Permission denied", "NotAllowedError");
      };
    }""")
    visitor.page.get_by_role("button", name="Start").click()
    visitor.page.get_by_role("alert").get_by_text("may not use the microphone").wait_for()
    visitor.page.wait_for_selector("[data-state=idle]")
    assert visitor.complaints == []


def test_a_reader_who_scrolls_up_is_left_there(visit):
    visitor = visit()
    at = visitor.page.evaluate("""async () => {
      const {TranscriptView} = await import("/transcript_view.js");
      const box = document.getElementById("transcript");
      const view = new TranscriptView(box, document.getElementById("to-newest"), {});
      const say = (from, to) => {
        for (let number = from; number < to; number++) {
          const words = [{text: "Word", start_ms: 0, end_ms: 80, confidence: 0.5}];
          view.update([{number, text: "Word", words, isFinal: true}]);
        }
      };
      const isAtEnd = () => box.scrollTop + box.clientHeight >= box.scrollHeight - 1;
      const scrolled = () => new Promise((resolve) => setTimeout(resolve, 200));
      view.clear();
      say(0, 40);
      const followed = isAtEnd();
      await scrolled();
      box.scrollTop = 100;
      await scrolled();
      say(40, 60);
      const left = box.scrollTop === 100;
      document.getElementById("to-newest").click();
      return {followed, left, back: isAtEnd()};
    }""")
    assert at == {"followed": True, "left": True, "back": True}


def test_every_control_has_a_name_and_the_keyboard_comes_to_it(visit):
    visitor = visit()
    page = visitor.page
    visitor.settle(pace="fast")
    visitor.drop(SAMPLES / "pico_us.flac")
    page.wait_for_selector(OVER)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    controls = [
        node
        for node in tree["nodes"]
        if not node.get("ignored")
        and any(p["name"] == "focusable" and p["value"]["value"] for p in node["properties"])
        and node["role"]["value"] not in ("RootWebArea", "generic")  # generic: the other words
    ]
    assert len(controls) > 20
    assert [node for node in controls if not node.get("name", {}).get("value")] == []
    page.evaluate("() => document.activeElement.blur()")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    ids = {element["id"] for element in reached}
    assert {"theme", "transcript", "copy", "language", "phrases", "start", "choose"} <= ids
    assert all(element["outline"] >= 2 for element in reached if element["id"] == "start")
    assert sum(element["isWord"] for element in reached) in (1, 2)  # one stop for all words


FOCUSED = """() => {
  const element = document.activeElement;
  const outline = parseFloat(getComputedStyle(element).outlineWidth);
  return {id: element.id, outline, isWord: element.classList.contains("word")};
}"""

# text whose contrast with what is behind it is less than WCAG's AA asks for
FAINT = """() => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (element) => {
    const below = behind(element);
    const [a, b] = [over(rgba(getComputedStyle(element).color), below), below].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const hasText = (element) => [...element.childNodes]
    .some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const shown = [...document.body.querySelectorAll("*")].filter((element) =>
    hasText(element) && element.checkVisibility() && !element.closest(":disabled, option"));
  const faint = shown.filter((element) => contrast(element) < 4.5)
    .map((element) => `${element.textContent.slice(0, 30)}: ${contrast(element).toFixed(2)}`);
  return {numShown: shown.length, faint};
}"""


def test_contrast_in_both_themes(visit):
    visitor = visit(color_scheme="light")
    page = visitor.page
    visitor.settle(pace="fast")
    visitor.drop(SAMPLES / "flite_slt.flac")
    page.wait_for_selector(OVER)
    page.click("#lag-what")
    page.locator(".word").first.focus()
    grounds = set()
    for theme in ("dark", "light"):  # each chosen against the system's
        page.emulate_media(color_scheme="light" if theme == "dark" else "dark")
        page.evaluate("() => localStorage.clear()")
        page.get_by_role("button", name=f"{theme.capitalize()} colours").click()
        grounds.add(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
        seen = page.evaluate(FAINT)
        assert seen["numShown"] > 40
        assert seen["faint"] == []
    assert len(grounds) == 2


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_nothing_is_cut_off(visit, width):
    visitor = visit(viewport={"width": width, "height": 740}, reduced_motion="reduce")
    page = visitor.page
    if width < 960:
        page.click("#settings-toggle")
    visitor.settle(pace="fast")
    if width < 960:
        page.keyboard.press("Escape")
    visitor.drop(SAMPLES / "pico_us.flac")
    page.wait_for_selector(OVER)
    outside = page.evaluate("""() => [...document.querySelectorAll("button, p, .word, dd")]
      .filter((element) => element.checkVisibility() && !element.closest(".unseen"))
      .filter((element) => {
        const box = element.getBoundingClientRect();
        return box.width && (box.left < 0 || box.right > innerWidth + 0.5);
      }).map((element) => element.textContent)""")
    assert outside == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert visitor.complaints == []
