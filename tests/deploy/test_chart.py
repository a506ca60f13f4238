"""The chart: valid for Kubernetes, and of one mind with the server, the gateway and the alerts."""

from __future__ import annotations

import copy
import re

import pytest
import yaml
from jsonschema import ValidationError

from asr_gateway.app import make_app
from asr_gateway.cli import gateway
from asr_gateway.settings import GatewaySettings
from asr_server import companion, guard, launcher
from asr_server.cli import serve
from asr_server.settings import ServerSettings
from deploy.chart import (
    BARE,
    CHART,
    GPU,
    RELEASES,
    ROOT,
    SCALED,
    TLS,
    TRITON,
    WATCHED,
    container,
    environment,
    helm,
    needs_helm,
    only,
    render,
    validate,
)
from nemotron_asr.settings import Settings

pytestmark = needs_helm
OLDEST, NEWEST = "1.27", "1.37"  # of Kubernetes


@pytest.fixture(params=RELEASES)
def objects(request) -> tuple[dict, ...]:
    return render(*RELEASES[request.param])


def pod_of(objects) -> dict:
    return only(objects, "Deployment")["spec"]["template"]


# --- valid ---


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_one_that_kubernetes_knows(objects, version):
    for one in objects:
        validate(one, version)


def test_all_kinds_are_there():
    kinds = [one["kind"] for one in render(*RELEASES["all"])]
    assert sorted(kinds) == [
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "Service",
        "ServiceMonitor",
    ]
    assert {one["kind"] for one in render(*BARE)} == {"Deployment", "Service"}


@pytest.mark.parametrize("kind", ["Deployment", "NetworkPolicy", "ServiceMonitor"])
def test_a_field_that_is_unknown_would_be_found(kind):
    one = copy.deepcopy(only(render(*RELEASES["all"]), kind))
    one["spec"]["selectr"] = {}
    with pytest.raises(ValidationError, match="selectr"):
        validate(one, NEWEST)


@pytest.mark.parametrize("values", [(), GPU])
def test_helm_finds_nothing_to_complain_of(values):
    done = helm("lint", "--strict", "--quiet", str(CHART), *values)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        "srver.slots=1",
        "server.slot=1",
        "server.slots=0",
        "server.dtype=float8",
        "server.env[0].name=X,server.env[0].value=4",
        "drain.timeoutSeconds=30s",
        "autoscaler.targetPercent=700",
        "triton.from[0].pods=x",
        "networkPolicy.from[0].ipBlok.cidr=x",
    ],
)
def test_a_bad_value_is_named(wrong):
    done = helm("template", "test", str(CHART), "--set", wrong)
    assert done.returncode != 0
    named = re.split(r"[.=\[]", wrong)
    assert any(f"'{name}'" in done.stderr or f"/{name}" in done.stderr for name in named)


def test_two_releases_do_not_meet():
    def names(objects) -> set[tuple[str, str]]:
        return {(one["kind"], one["metadata"]["name"]) for one in objects}

    one, other = render(*RELEASES["all"]), render(*RELEASES["all"], release="other")
    assert not names(one) & names(other)
    selector = only(other, "Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod_of(one)["metadata"]["labels"].items()
    long = render(release="a" * 53)
    assert all(len(one["metadata"]["name"]) <= 63 for one in long)


# --- of one mind with itself ---


def test_selectors_find_the_pods(objects):
    labels = pod_of(objects)["metadata"]["labels"].items()
    found = {
        "Deployment": lambda spec: spec["selector"]["matchLabels"],
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
    }
    for one in objects:
        if one["kind"] in found:
            selector = found[one["kind"]](one["spec"])
            assert selector
            assert selector.items() <= labels, one["kind"]


def test_named_ports_are_those_of_the_container(objects):
    ports = {port["name"] for port in container(objects)["ports"]}
    services = [one for one in objects if one["kind"] == "Service"]
    named = [port["targetPort"] for one in services for port in one["spec"]["ports"]]
    named += [container(objects)[f"{p}Probe"]["httpGet"]["port"] for p in PROBES]
    for policy in (one for one in objects if one["kind"] == "NetworkPolicy"):
        named += [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    assert set(named) <= ports


def test_volumes_are_mounted_and_there(objects):
    volumes = [one["name"] for one in pod_of(objects)["spec"]["volumes"]]
    assert volumes == [one["name"] for one in container(objects)["volumeMounts"]]


def test_the_number_of_pods_is_the_autoscalers():
    """A number in the chart would be set again by every upgrade, rollback and sync."""
    assert "replicas" not in only(render(*SCALED), "Deployment")["spec"]
    assert only(render(), "Deployment")["spec"]["replicas"] == 2
    target = only(render(*SCALED), "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    deployment = only(render(*SCALED), "Deployment")
    assert target["name"] == deployment["metadata"]["name"]
    assert (target["kind"], target["apiVersion"]) == ("Deployment", deployment["apiVersion"])


def test_uploads_of_all_processes_fit_into_a_pod():
    for processes, files in ((1, "4"), (2, "2"), (3, "1")):
        objects = render("--set", f"gateway.processes={processes}")
        assert environment(objects)["ASR_GATEWAY_MAX_FILES"] == files
    done = helm("template", "test", str(CHART), "--set", "gateway.processes=5")
    assert "gateway.maxFiles is 4; valid: at least gateway.processes, 5" in done.stderr


# --- of one mind with the server ---


def read_options(objects, monkeypatch, tmp_path) -> dict:
    """What `asr serve` makes of the container's variables."""
    for name, value in environment(objects).items():
        if value.startswith(("/tls/", "/keys/")):  # mounted from secrets
            path = tmp_path / value.rpartition("/")[2]
            path.write_text("{}")
            value = str(path)
        monkeypatch.setenv(name, value)
    return serve.make_context("serve", []).params


def test_variables_are_known_and_what_they_say_is_valid(objects, monkeypatch, tmp_path):
    known = {option.envvar for command in (serve, gateway) for option in command.params}
    known |= {f"ASR_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert environment(objects).keys() <= known
    params = read_options(objects, monkeypatch, tmp_path)
    assert params["gateway"] is True
    gateway.make_context("gateway", [])


def test_ports_are_those_that_are_listened_at(objects, monkeypatch, tmp_path):
    params = read_options(objects, monkeypatch, tmp_path)
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    assert ports.pop("http") == params["gateway_port"]
    assert ports.pop("riva") == params["riva_port"]
    assert ports.pop("metrics") == params["metrics_port"]
    assert ports.pop("triton", params["grpc_port"]) == params["grpc_port"]
    assert not ports
    assert params["gateway_host"] == params["metrics_host"] == "0.0.0.0"


def test_triton_stays_on_loopback_unless_asked_for():
    for name, arguments in RELEASES.items():
        objects = render(*arguments)
        with_triton = TRITON[1] in arguments
        assert (environment(objects)["ASR_HOST"] == "127.0.0.1") != with_triton, name
        policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
        opened = [p["port"] for one in policies for r in one["spec"]["ingress"] for p in r["ports"]]
        assert ("triton" in opened) == with_triton
    nobody = render("--set", "triton.enabled=true")
    rules = only(nobody, "NetworkPolicy")["spec"]["ingress"]
    assert not any(port["port"] == "triton" for rule in rules for port in rule["ports"])


def test_only_those_named_come_in_at_the_gateway():
    policy = only(render("--set-json", 'networkPolicy.from=[{"podSelector":{}}]'), "NetworkPolicy")
    rules = policy["spec"]["ingress"]
    at_gateway = [r for r in rules if {"http", "riva"} & {port["port"] for port in r["ports"]}]
    assert [rule["from"] for rule in at_gateway] == [[{"podSelector": {}}]]


def test_kubernetes_waits_longer_than_the_server_does(objects, monkeypatch, tmp_path):
    """Drain, then the longest that ending takes: what is killed cannot say goodbye."""
    params = read_options(objects, monkeypatch, tmp_path)
    (_sleep, pre_stop_s) = container(objects)["lifecycle"]["preStop"]["exec"]["command"]
    ending_s = (
        companion.STOP_MARGIN_S
        + launcher.REFUSAL_S
        + ServerSettings.exit_timeout_s
        + launcher.STOP_MARGIN_S
        + guard.REAP_TIMEOUT_S
    )
    spec = pod_of(objects)["spec"]
    needed_s = int(pre_stop_s) + params["drain_timeout_s"] + ending_s
    assert spec["terminationGracePeriodSeconds"] >= needed_s
    deadline_s = only(objects, "Deployment")["spec"]["progressDeadlineSeconds"]
    assert deadline_s > spec["terminationGracePeriodSeconds"]
    context = gateway.make_context("gateway", [])
    assert context.params["drain_timeout_s"] == params["drain_timeout_s"]


PROBES = ("startup", "readiness", "liveness")


def test_probes_ask_for_what_the_gateway_answers(objects):
    paths = {getattr(route, "path", None) for route in make_app(GatewaySettings()).routes}
    scheme = "HTTPS" if "ASR_GATEWAY_TLS_CERT" in environment(objects) else "HTTP"
    for name in PROBES:
        asked = container(objects)[f"{name}Probe"]["httpGet"]
        assert asked["path"] in paths - {""}
        assert asked["scheme"] == scheme
    started = container(objects)["startupProbe"]
    longest_s = started["periodSeconds"] * started["failureThreshold"]
    assert longest_s > ServerSettings.start_timeout_s


def test_pods_may_do_little(objects):
    dockerfile = (ROOT / "Dockerfile").read_text()
    uid, gid = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.M).groups()
    security = pod_of(objects)["spec"]["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(uid), int(gid))
    assert security["runAsNonRoot"]
    own = container(objects)["securityContext"]
    assert own["readOnlyRootFilesystem"]
    assert not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    writable = [m["mountPath"] for m in container(objects)["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["/tmp", "/dev/shm"]


def test_images_are_those_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    assert container(render())["image"].partition(":")[0] in makefile
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert container(render())["image"].endswith(f":{version}")
    assert container(render(*GPU))["image"].endswith(f":{version}-gpu")


def test_gpu_values_ask_for_one():
    asked = container(render(*GPU))["resources"]
    assert asked["limits"]["nvidia.com/gpu"] == asked["requests"]["nvidia.com/gpu"] == "1"
    assert environment(render(*GPU))["ASR_DEVICE"] == "cuda"
    assert "nvidia.com/gpu" not in container(render())["resources"]["limits"]


# --- of one mind with those who watch ---


def test_monitors_find_the_service_and_its_ports():
    objects = render(*WATCHED, *TLS)
    spec = only(objects, "ServiceMonitor")["spec"]
    services = [one for one in objects if one["kind"] == "Service"]
    (service,) = [
        one
        for one in services
        if spec["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    ports = {port["name"] for port in service["spec"]["ports"]}
    assert {one["port"] for one in spec["endpoints"]} <= ports
    schemes = {one["port"]: one.get("scheme", "http") for one in spec["endpoints"]}
    assert schemes == {"metrics": "http", "http": "https"}


def test_alerts_are_those_of_the_project_and_speak_of_jobs_that_there_are():
    objects = render(*WATCHED)
    rules = only(objects, "PrometheusRule")["spec"]
    assert rules == yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    endpoints = only(objects, "ServiceMonitor")["spec"]["endpoints"]
    jobs = {label["replacement"] for one in endpoints for label in one["relabelings"]}
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert {job for expr in expressions for job in re.findall(r'\bjob="([^"]+)"', expr)} == jobs


def test_the_autoscaler_asks_for_what_the_adapter_serves():
    adapter = yaml.safe_load((CHART.parent / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    (metric,) = only(render(*SCALED), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert metric["pods"]["target"]["averageValue"] == "700m"
    series = re.match(r"\w+", rule["seriesQuery"])[0]
    assert re.match(rule["name"]["matches"], series)
    source = (ROOT / "python_backend" / "asr_triton" / "metrics.py").read_text()
    used = set(re.findall(r"asr_\w+", rule["metricsQuery"]))
    assert used == {series, "asr_slots"}
    assert all(f'"{name}"' in source for name in used)
