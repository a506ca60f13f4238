"""The dashboard and the alert rules speak of metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from asr_gateway.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "speech.json"
TRITONS = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_gpu_memory_used_bytes",
}
NAME = re.compile(r"(?<!\")\b(?:asr|nv)_[a-z_]+")


def rules() -> list[dict]:
    return [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]


def panels() -> list[dict]:
    return [p for p in json.loads(DASHBOARD.read_text())["panels"] if p["type"] != "row"]


def names_there_are() -> set[str]:
    """Of the streaming model (read off its source: it imports Triton), the gateway and Triton."""
    source = (ROOT / "python_backend" / "asr_triton" / "metrics.py").read_text()
    metrics = Metrics()
    for family in vars(metrics).values():
        for labels in getattr(family, "_labelnames", ()) and [family._labelnames]:
            family.labels(*labels)
    gateway = re.findall(r"^(asr_gateway_[a-z_]+)", metrics.page().decode(), re.MULTILINE)
    return {*re.findall(r'"(asr_[a-z_]+)"', source), *gateway, *TRITONS}


def test_every_name_is_a_metric():
    used = [rule["expr"] for rule in rules()]
    used += [target["expr"] for panel in panels() for target in panel["targets"]]
    names = {name for expr in used for name in NAME.findall(expr)}
    assert len(names) > 15
    assert names <= names_there_are()


def test_every_alert_says_what_it_means():
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "warn")


def test_panels_do_not_overlap():
    seen = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & seen, panel["title"]
        assert at["x"] + at["w"] <= 24
        seen |= cells


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs Prometheus' promtool")
def test_prometheus_takes_the_rules_and_the_gateways_page():
    subprocess.run(["promtool", "check", "rules", RULES], check=True, capture_output=True)
    page = Metrics().page()
    subprocess.run(["promtool", "check", "metrics"], input=page, check=True, capture_output=True)
