"""The files around the image agree with each other and with the server. Seconds, no engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from asr_gateway.settings import GatewaySettings
from asr_server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"
COMPOSE = ("compose.yaml", "compose.gpu.yaml")
DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")  # of a variable that nobody sets
SERVER = ServerSettings(model_repository=ROOT / "model_repository")


def compose(name: str = "compose.yaml") -> dict:
    return yaml.safe_load(DEFAULT.sub(r"\1", (ROOT / name).read_text()))


def services() -> dict[str, dict]:
    return compose()["services"]


def test_the_dockerfile_is_clean():
    hadolint = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_follow_the_specification(name):
    PyCompose.from_json(json.dumps(compose(name)))


@pytest.mark.parametrize(
    "wrong", [{"readonly": True}, {"shm_size": "2q"}, {"ports": ["a:b"]}, {"cap_drop": "ALL"}]
)
def test_that_check_sees_mistakes(wrong):
    document = compose()
    document["services"]["asr"] |= wrong
    with pytest.raises(ValueError):  # noqa: PT011  each says something else
        PyCompose.from_json(json.dumps(document))


def test_whatever_is_mounted_is_there():
    document = compose()
    for name, service in document["services"].items():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
            else:
                assert source in document["volumes"], f"{name}: {source}"


def test_every_service_is_hardened_pinned_and_on_this_machine_alone():
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def test_ports_are_those_of_the_gateway_and_none_of_tritons():
    doors = {GatewaySettings().port, GatewaySettings().riva_port}
    assert {int(port.split(":")[-1]) for port in services()["asr"]["ports"]} == doors
    assert set(map(int, re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.M)[1].split())) == doors
    assert "ASR_HOST" not in services()["asr"]["environment"]
    assert "ASR_HOST" not in DOCKERFILE


def test_prometheus_asks_where_metrics_are():
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
    }
    assert targets == {
        "asr": [f"asr:{SERVER.metrics_port}"],
        "asr-gateway": [f"asr:{GatewaySettings().port}"],
    }
    rules = PROMETHEUS.with_name("alerts.yml").read_text()
    assert set(re.findall(r'job="([^"]+)"', rules)) == set(targets)


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs Prometheus' promtool")
def test_prometheus_takes_its_configuration():
    checked = subprocess.run(
        ["promtool", "check", "config", PROMETHEUS], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "rules found" in checked.stdout


def test_grafana_finds_prometheus_and_the_dashboard():
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    service, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()
    assert services()[service]["ports"] == [f"127.0.0.1:{port}:{port}"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "speech.yml").read_text())[
        "providers"
    ]
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert f"./deploy/grafana/speech.json:{home}:ro" in services()["grafana"]["volumes"]


def test_a_stop_waits_for_streams_and_the_check_is_the_images():
    asr = services()["asr"]
    assert int(asr["stop_grace_period"].rstrip("s")) > SERVER.drain_timeout_s + 10
    assert json.dumps(asr["healthcheck"]["test"][1:]) in DOCKERFILE
    for name in ("interval", "timeout", "start_period"):
        assert f"--{name.replace('_', '-')}={asr['healthcheck'][name]}" in DOCKERFILE


def test_both_ways_to_a_gpu_have_one_base():
    base = compose("compose.gpu.yaml")["services"]["asr"]["build"]["args"]["BASE"]
    assert re.search(r"^GPU_BASE \?= (.*)$", (ROOT / "Makefile").read_text(), re.M)[1] == base
    assert re.fullmatch(r"nvcr\.io/nvidia/tritonserver:26\.\d\d-py3", base)


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="lists Debian's packages")
def test_a_bill_of_materials_follows_its_schema(monkeypatch):
    monkeypatch.setenv("TRITON_SERVER_VERSION", "2.72.0")  # as NVIDIA's image does
    command = [sys.executable, ROOT / "scripts" / "sbom.py", "nemotron-asr-triton"]
    first, second = (subprocess.run(command, check=True, capture_output=True) for _ in range(2))
    assert first.stdout == second.stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(first.stdout.decode()) is None
    assert "pkg:pypi/torch@" in first.stdout.decode()
    assert "pkg:github/triton-inference-server/server@2.72.0" in first.stdout.decode()
    assert "pkg:deb/" in first.stdout.decode()
