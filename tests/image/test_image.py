"""The CPU image, built and run: what it says, that it writes nothing and reaches nobody."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from image.container import Container
from nemotron_asr import load_checkpoint
from nemotron_asr.audio import decode_audio

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
RECORDING = "person_librivox.flac"  # the demo's
SAMPLES = "/mnt"  # where the container finds it
MAX_SIZE = 1.6e9  # bytes; with CUDA's libraries it would be several times that
ANYWHERE = "192.0.2.1"  # of a net that is kept for documents


@pytest.fixture(scope="module")
def container(builder, cpu_image, root):
    """As it is run, with the recordings to read."""
    with Container(root, builder.config(cpu_image), {SAMPLES: ROOT / "samples"}) as running:
        running.wait_until_healthy()
        yield running


@pytest.fixture(scope="module")
def expected() -> str:
    """The demo's transcript."""
    samples = decode_audio((ROOT / "samples" / RECORDING).read_bytes())
    recognizer = load_checkpoint(ROOT / "checkpoints" / "demo")
    return recognizer.transcribe([samples], latency_ms=320)[0].text


def test_the_demos_client_gets_the_demos_transcript(container, expected):
    code = """
import sys
from asr_client import LiveStream
from asr_client.audio import file_packets
with LiveStream("127.0.0.1:8001", latency_ms=320) as stream:
    stream.feed(file_packets(sys.argv[1], packet_ms=80))
    print(stream.finish().text)
"""
    live = container.run("python", "-c", code, f"{SAMPLES}/{RECORDING}")
    assert live.stdout.strip() == expected, live.stderr
    options = ["--latency-ms", "320"]
    files = container.run("asr", "transcribe", f"{SAMPLES}/{RECORDING}", *options)
    assert expected in files.stdout, files.stderr


def test_the_gateway_is_open_and_triton_is_not(container, expected):
    code = """
import sys, httpx
with open(sys.argv[1], "rb") as file:
    answer = httpx.post(
        "http://127.0.0.1:8080/v1/audio/transcriptions",
        files={"file": file}, data={"model": "whisper-1", "latency_ms": 320}, timeout=120,
    )
print(answer.json()["text"])
"""
    through = container.run("python", "-c", code, f"{SAMPLES}/{RECORDING}")
    assert through.stdout.strip() == expected, through.stderr
    listening = container.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
    rows = [line.split() for line in listening.splitlines()]
    sockets = {row[1] for row in rows if row[3] == "0A"}  # LISTEN
    by_port = {int(port, 16): address for address, _, port in (s.partition(":") for s in sockets)}
    for port in (8000, 8001, 8002):
        assert by_port.pop(port) in ("0100007F", "0000000000000000FFFF00000100007F")
    assert set(by_port) == {8080, 50051}
    assert not any(address.endswith("0100007F") for address in by_port.values())


def test_it_runs_without_rights_and_with_nowhere_to_write(container):
    status = container.run("cat", "/proc/1/status").stdout
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(told["Uid"].split()) == {"10001"}
    assert {int(told[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Bnd")} == {0}
    for place in ("/", "/opt/asr", "/checkpoint", "/etc"):
        refused = container.run("touch", f"{place}/x")
        assert "Read-only file system" in refused.stderr, place
    assert (
        container.run("ls", "/sys/class/net", "/proc/sys/net/ipv4/conf").stdout.split()[-1] == "lo"
    )
    code = f"import socket; socket.create_connection(('{ANYWHERE}', 443), 5)"
    assert "Network is unreachable" in container.run("python", "-c", code).stderr


def test_it_stops_when_told_and_leaves_nothing(builder, cpu_image, root, tmp_path):
    """Another model, mounted; arguments go to `asr serve`."""
    config = builder.config(cpu_image) | {"Cmd": ["--slots", "3"]}
    model = shutil.copytree(ROOT / "checkpoints" / "demo", tmp_path / "model")
    for file in model.iterdir():
        file.chmod(0o644)
    before = listing(root)
    with Container(root, config, {"/checkpoint": model}) as running:
        running.wait_until_healthy()
        assert "3 slots" in running.log()
        assert running.stop() == 0, running.log()
        assert "Traceback" not in running.log()
    assert listing(root) == before


def listing(root: Path) -> set[tuple]:
    """Every file with its size and the time of its last change."""
    listed = subprocess.run(
        ["find", root, "-xdev", "-printf", "%p %s %C@ %m\n"], check=True, capture_output=True
    )
    return set(listed.stdout.splitlines())


def test_the_bill_of_materials_is_valid_and_whole(root):
    written = (root / "usr" / "share" / "sbom" / "asr.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written) is None
    parts = {
        (c["purl"].split("/")[0], c["name"].lower()) for c in json.loads(written)["components"]
    }
    for name in ("torch", "nvidia-pytriton", "server", "nemotron-asr-triton"):
        assert ("pkg:pypi", name) in parts
    packages = subprocess.run(
        ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "--show", "--showformat=${Package}\n"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {name for kind, name in parts if kind == "pkg:deb"} == set(packages)
    wheels = list((root / "opt" / "asr").glob("lib/python3*/site-packages/*.dist-info"))
    assert len([kind for kind, _ in parts if kind == "pkg:pypi"]) == len(wheels) > 30


def test_it_is_small_and_has_no_tools_nor_settings_of_the_build(root):
    size = subprocess.run(["du", "-sxb", root], check=True, capture_output=True).stdout.split()[0]
    print(f"{int(size) / 1e6:.0f} MB")
    assert int(size) < MAX_SIZE
    assert not list(root.glob("opt/asr/bin/pip*")) + list(root.glob("usr/bin/pip*"))
    for leftover in ("etc/pip.conf", "opt/pip", "build", "run/sbom.py"):
        assert not (root / leftover).exists(), leftover
    ours = [root / "opt" / "asr", root / "checkpoint", root / "usr"]
    open_to_all = subprocess.run(
        ["find", *ours, "-type", "f", "-perm", "/022"], check=True, capture_output=True
    )
    assert not open_to_all.stdout
