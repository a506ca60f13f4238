"""Examples of README and docs run as they stand; what their tables say is so."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import soundfile

from asr_client.cli import main
from asr_gateway import errors
from asr_server.cli import serve
from conftest import ROOT, blocks
from server.gateway.test_page import CHROMIUM, QUIET, sync_api

pytestmark = pytest.mark.server
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]


def examples(language: str, pages: list[Path] = PAGES):
    """A test for each block of code."""
    return pytest.mark.parametrize(
        "code",
        [
            pytest.param(code, id=f"{path.name}-{i}")
            for path in pages
            for i, code in enumerate(blocks(path, language))
        ],
    )


def lines(start: str) -> list[str]:
    """Lines of shell that begin so, joined where they go on."""
    code = "\n".join(block for path in PAGES for block in blocks(path, "sh"))
    found = re.split(r"\n|&& ", code.replace("\\\n", " "))
    return sorted({line.partition("  #")[0].strip() for line in found if line.startswith(start)})


@pytest.fixture
def here(gateway, served, monkeypatch):
    """Code that finds the servers of these tests where it names the default ports."""
    monkeypatch.chdir(ROOT)
    addresses = {
        "127.0.0.1:8001": served.server.grpc_address,
        "http://127.0.0.1:8000": served.server.http_url,
        "127.0.0.1:8080": f"127.0.0.1:{gateway.port}",
    }

    def at_ports(code: str) -> str:
        for written, real in addresses.items():
            code = code.replace(written, real)
        return code

    return at_ports


@examples("python", [p for p in PAGES if p.name != "batch.md"])
def test_python(here, capsys, code):
    exec(here(code), {})
    assert len(capsys.readouterr().out) > 20


@pytest.mark.parametrize("line", lines("curl"))
def test_curl(here, served, line):
    answer = subprocess.run(here(line), shell=True, capture_output=True, check=True).stdout
    (name,) = re.findall(r"samples/(\w+\.flac)", line)
    audio = soundfile.read(ROOT / "samples" / name, dtype="float32")[0]
    expected = served.expected(audio, "en-US", 1120).text
    assert json.loads(answer)["text"].strip() == expected.strip() != ""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.browser
def test_javascript(here, gateway, served):
    """In a browser: the guide's functions with a recording, and the WebSocket's example begins."""
    transcribe, live = blocks(ROOT / "docs/clients.md", "js")
    (microphone,) = blocks(ROOT / "docs/websocket.md", "js")
    path = ROOT / "samples" / "pico_us.flac"
    pcm = soundfile.read(path, dtype="int16")[0]
    audio = soundfile.read(path, dtype="float32")[0]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page()
        page.goto(gateway.url)
        as_bytes = "Uint8Array.from(bytes)"
        text = page.evaluate(
            f"(bytes) => {{ {here(transcribe)} return transcribe(new File([{as_bytes}], 'a')) }}",
            list(path.read_bytes()),
        )
        heard = page.evaluate(
            f"""async (samples) => {{
                {here(live)}
                let text = "";
                await live(Int16Array.from(samples), (more) => (text += more));
                return text;
            }}""",
            pcm.tolist(),
        )
        opened = page.evaluate(
            f"""async () => {{
                {here(microphone)}
                return new Promise((resolve) => {{
                    const told = ({{ data }}) => resolve(JSON.parse(data).type);
                    socket.addEventListener("message", told);
                    socket.addEventListener("close", () => resolve("closed"));
                }});
            }}"""
        )
        browser.close()
    assert opened == "ready"
    assert text.strip() == served.expected(audio, "auto", 1120).text.strip() != ""
    assert heard == served.expected(audio, "en-US", 320).text != ""


@pytest.mark.parametrize("line", lines(".venv/bin/asr ") + lines("asr "))
def test_commands_have_these_options(line):
    arguments = shlex.split(line.rstrip("&"))[1:]
    arguments = ["1" if word.isupper() or "..." in word else word for word in arguments]
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        command = command.get_command(context, arguments.pop(0))
        assert command is not None, line
        context = click.Context(command, parent=context)
    command.make_parser(context).parse_args(arguments)  # raises where one is unknown


def test_every_link_leads_somewhere():
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
            leads_to = path.parent / target if target else path
            assert leads_to.exists(), f"{path.name}: {target}"
            if heading:
                anchors = {
                    re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
                    for title in re.findall(r"^#+ (.*)$", leads_to.read_text("utf-8"), re.M)
                }
                assert heading in anchors, f"{path.name}: {target}#{heading}"


def test_settings_are_the_real_ones():
    guide = (ROOT / "docs/operators.md").read_text(encoding="utf-8")
    options = {name for parameter in serve.params for name in parameter.opts}
    documented = set(re.findall(r"`(--[a-z-]+)`", guide.split("## Settings")[1].split("##")[0]))
    assert documented <= options
    assert options - documented == {"--help", "-h"}


def test_codes_of_errors_are_the_real_ones():
    guide = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+.*?) \| ([\d, ]+) \| ([\d, ]+|refused) \| (\w+) \|", guide, re.M)
    said = set()
    for code, statuses, closes, status in rows:
        kind = code.strip("`").split(":")[0].split("`")[0]
        pairs = zip(statuses.split(", "), closes.split(", "), strict=True)
        said |= {(kind, int(http), close, status) for http, close in pairs}
    before_a_session = (errors.Unauthorized, errors.Forbidden)
    real = {
        (kind.code, http, "refused" if kind in before_a_session else str(close), status.name)
        for kind, (http, close, status) in errors._STATUS.items()
        if kind.__name__ not in ("ClientError", "StreamClosed", "ModelNotFound")
    }
    assert said == real


def test_alerts_are_the_real_ones():
    guide = (ROOT / "docs/operators.md").read_text(encoding="utf-8")
    rules = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"`(Speech\w+)`", guide)) == set(re.findall(r"alert: (\w+)", rules))
