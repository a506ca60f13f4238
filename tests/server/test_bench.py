"""The benchmarks of the whole server, short: what they report makes sense, however slow it is."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from asr_bench.cli import bench
from asr_bench.report import read_report

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]


@pytest.fixture
def run(demo_server, tmp_path):
    """Runs a command against the bundled checkpoint's server; its report."""

    def run(*arguments: str) -> dict:
        path = tmp_path / "report.json"
        command = [*arguments, "--url", demo_server.grpc_address, "--json", str(path)]
        result = CliRunner().invoke(bench, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return read_report(path)

    return run


@pytest.mark.parametrize("packet_ms", ["320", "20"])
def test_capacity_of_two_streams(run, packet_ms):
    report = run("capacity", "--streams", "2", "--duration-s", "4", "--packet-ms", packet_ms)
    (row,) = report["rows"]
    assert row["streams"] == 2
    assert row["errors"] == []
    assert row["chunks"] == 2 * (4000 // 320)
    assert row["packets"] == 2 * (4000 // int(packet_ms))
    assert row["text_chars"] > 10
    assert 0 < row["lag_p50_ms"] <= row["lag_p99_ms"] <= row["lag_p100_ms"]
    assert row["cores"]["asr_streaming"] > 0
    assert row["cores"]["load generator"] > 0


def test_packets_cost_cpu_in_both_processes(run):
    report = run("packets", "--streams", "2", "--duration-s", "3", "--rounds", "1")
    empty, spoken = report["rows"]
    assert empty["packets"] == 2 * 3000 // 20
    assert spoken["packets"] == 2 * 1000 // 20
    for row in report["rows"]:
        assert 0 <= row["server_ms"] < 50
        assert 0 <= row["python_ms"] < 50


def test_live_word_errors_are_the_offline_ones(run, samples):
    folder = str(samples[0].parent)
    report = run("wer", folder, "--latency-ms", "320", "--prompt", "given", "--live")
    offline, live = report["rows"]
    assert (offline["door"], live["door"]) == ("offline", "live")
    assert live["wer"] == offline["wer"] < 0.5
    assert live["equal_share"] == 1.0
