"""What a packet costs outside the model: CPU time of the server and of its Python process."""

from __future__ import annotations

import time
from pathlib import Path

from .live_load import LoadResult, LoadSpec, run_load
from .report import TextTable, make_report, say
from .servers import SERVER, STREAMING, Clock, Target, serving

METHOD = """Live streams on the real server, one gRPC stream each, send packets at their pace that
complete no chunk, so that the model is never called: packets of 0 samples, and packets with audio
that stop short of the first chunk of 1,120 ms (new streams follow). CPU time (user and system, from
/proc) of tritonserver and of the asr_streaming process between the first packet and the last
answer, less what they use while idle, over the number of packets. START and END lie outside."""
LATENCY_MS = 1120  # the longest before the model is called
BEFORE_FIRST_CHUNK_S = 1.0  # of audio: 16,840 samples are needed for the first chunk
MARGIN_S = 0.5  # before the first packet and after the last one
END_PAUSE_S = 1.5
IDLE_S = 3.0


def run(
    checkpoint: Path | None,
    url: str | None = None,
    *,
    streams: int = 16,
    packet_ms: int = 20,
    duration_s: float = 20.0,
    rounds: int = 8,
    device: str = "cpu",
    dtype: str = "float32",
) -> dict:
    """The report: one row for empty packets and one for packets with audio."""
    with serving(checkpoint, url, device=device, dtype=dtype, slots=max(64, streams)) as target:
        if STREAMING not in target.processes:
            raise RuntimeError("the processes of the server must be on this machine")
        empty = LoadSpec(target.grpc, streams, LATENCY_MS, packet_ms, duration_s, silent=True)
        spoken = LoadSpec(target.grpc, streams, LATENCY_MS, packet_ms, BEFORE_FIRST_CHUNK_S)
        run_load(LoadSpec(target.grpc, streams, LATENCY_MS, packet_ms, 2.0))  # warms everything
        target.wait_idle()
        rows = [
            {"case": "0 samples", **measure(target, empty, 1)},
            {"case": f"{packet_ms} ms of audio", **measure(target, spoken, rounds)},
        ]
        used = {"checkpoint": checkpoint, "streams": streams, "packet_ms": packet_ms,
                "dtype": dtype, "device": device, "server": target.version}  # fmt: skip
        return make_report("packets", used, rows, METHOD)


def measure(target: Target, spec: LoadSpec, rounds: int) -> dict:
    """CPU per packet of each process, in ms."""
    idle = _idle_share(target)
    cpu_s, elapsed_s, total = dict.fromkeys(target.processes, 0.0), 0.0, LoadResult()
    for _ in range(rounds):
        seen: list[Clock] = []

        def note(seen=seen) -> None:
            seen.append(target.clock())

        one = LoadSpec(**{**vars(spec), "end_pause_s": END_PAUSE_S})
        total.add(run_load(one, at=[(-MARGIN_S / 2, note), (spec.duration_s + MARGIN_S, note)]))
        before, after = seen
        elapsed_s += after.now_s - before.now_s
        cpu_s = {n: cpu_s[n] + after.cpu_s[n] - before.cpu_s[n] for n in cpu_s}
        target.wait_idle()
    if total.errors:
        raise RuntimeError(f"{len(total.errors)} streams failed: {total.errors[0]}")
    row = {"packets": total.num_packets, "packets_per_s": round(total.num_packets / elapsed_s, 1)}
    for name, key in ((SERVER, "server_ms"), (STREAMING, "python_ms")):
        per_packet_ms = 1000 * (cpu_s[name] - idle[name] * elapsed_s) / total.num_packets
        row[key] = round(per_packet_ms, 4)
        row[key.replace("_ms", "_idle_share")] = round(idle[name], 4)
    row["generator_ms"] = round(1000 * total.generator_cpu_s / total.num_packets, 4)
    say(f"{row}")
    return row


def _idle_share(target: Target) -> dict[str, float]:
    """Cores that each process uses without any load."""
    before = target.cpu_s()
    time.sleep(IDLE_S)
    return {name: (s - before[name]) / IDLE_S for name, s in target.cpu_s().items()}


def table(report: dict) -> TextTable:
    columns = ["packets", "number", "a second", "tritonserver ms", "Python ms", "generator ms"]
    keys = ("case", "packets", "packets_per_s", "server_ms", "python_ms", "generator_ms")
    rows = [[_digits(row[key]) for key in keys] for row in report["rows"]]
    return TextTable("CPU time of a packet outside the model", columns, rows)


def _digits(value):
    return f"{value:.3f}" if isinstance(value, float) else value
