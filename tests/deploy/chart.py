"""The chart as the real helm renders it, and the schemas that its objects must obey."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "speech"
CRDS = Path(__file__).parent / "crds"
HELM = shutil.which("helm") or shutil.which("helm", path=ROOT / "build")
needs_helm = pytest.mark.skipif(not HELM, reason="needs helm: python scripts/fetch_helm.py")

GPU = ("--values", str(CHART / "values-gpu.yaml"))
TLS = ("--set", "tls.secret=certificate,keys.secret=keys")
SCALED = ("--set", "autoscaler.enabled=true")
WATCHED = ("--set", "monitoring.enabled=true,monitoring.labels.release=prometheus")
TRITON = ("--set", "triton.enabled=true,triton.from[0].podSelector.matchLabels.speech=client")
OTHERS = (
    "--set", "ingress.enabled=true,ingress.className=nginx,ingress.tlsSecret=site",
    "--set", "checkpoint.claim=models,checkpoint.subPath=nemotron,runtimeClassName=nvidia",
    "--set-string", "server.env[0].name=ASR_MAX_FILE_S,server.env[0].value=60,podLabels.a=b",
    "--set-string", "nodeSelector.gpu=true,podAnnotations.note=1,service.annotations.a=b",
    "--set", "imagePullSecrets[0].name=registry,service.type=LoadBalancer",
    "--set", "networkPolicy.from[0].namespaceSelector.matchLabels.speech=yes",
    "--set", "networkPolicy.egress[0].to[0].ipBlock.cidr=10.0.0.0/8",
)  # fmt: skip
BARE = ("--set", "networkPolicy.enabled=false,disruption.enabled=false")
RELEASES = {
    "cpu": (),
    "gpu": GPU,
    "tls": TLS,
    "scaled": SCALED,
    "watched": WATCHED,
    "triton": TRITON,
    "bare": BARE,
    "all": (*GPU, *TLS, *SCALED, *WATCHED, *TRITON, *OTHERS),
}


def helm(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True)


@functools.cache
def render(*arguments: str, release: str = "test") -> tuple[dict, ...]:
    """The objects of a release with these arguments."""
    done = helm("template", release, str(CHART), "--namespace", "asr", *arguments)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def only(objects, kind: str, suffix: str = "") -> dict:
    """The object of this kind, whose name ends so where there are several."""
    found = [one for one in objects if one["kind"] == kind]
    found = [one for one in found if one["metadata"]["name"].endswith(suffix)]
    assert found, f"no {kind}"
    return found[0] if suffix or len(found) == 1 else min(found, key=_name_length)


def _name_length(one: dict) -> int:
    return len(one["metadata"]["name"])


def container(objects) -> dict:
    (one,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return one


def environment(objects) -> dict[str, str]:
    """Of the container.  What is there twice no cluster takes."""
    variables = {one["name"]: one["value"] for one in container(objects)["env"]}
    assert len(variables) == len(container(objects)["env"])
    return variables


def validate(one: dict, version: str) -> None:
    """Raises ValidationError for what Kubernetes, or the operator of Prometheus, does not know."""
    schema = CRDS / f"{one['kind'].lower()}.json"
    if one["apiVersion"].startswith("monitoring.coreos.com/"):
        jsonschema.Draft202012Validator(_closed(json.loads(schema.read_text()))).validate(one)
        assert one["metadata"].keys() <= {"name", "namespace", "labels", "annotations"}
    else:
        kubernetes_validate.validate(one, version, strict=True)


def _closed(schema):
    """A schema that takes no other fields than those it names."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _closed(one) for name, one in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)
    return schema
