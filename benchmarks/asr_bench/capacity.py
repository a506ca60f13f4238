"""How many live streams the whole server holds at real-time pace."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from .live_load import LoadResult, LoadSpec, run_load
from .report import TextTable, make_report, say
from .servers import MACHINE, SERVER, STOLEN, STREAMING, Clock, Target, serving
from .stats import largest_passing, percentile, share_late
from .timing import wait_calm

METHOD = """Live streams through the real server (gRPC, sequence batcher, Python model) at the pace
of speech: one gRPC stream and connection each, starts staggered evenly over a chunk, bundled
recordings repeated, streams at different places of them. The lag of a chunk is the time from when
the last sample of the packet that completed it was due to be spoken, to its answer; the sender's
own delay is in it. A chunk is late when its lag exceeds the chunk's length. The final lag is from
the last sample to the answer to END, which decodes what remains. Unanswered chunks are late; a lag
of more than HOPELESS_S ends a run. C120: the most streams with at most 0.1 % of chunks late and p95
final at most 1 s over 120 s, found by doubling and bisection with short probes and then confirmed;
if not confirmed, 5 % fewer. A run is disturbed when more than 5 % of the cores were stolen by the
machine below or used by other processes; one that fails disturbed is repeated in calm. The load
generator runs on the same machine and takes its CPU from it."""
HOPELESS_S = 5.0
GENERATOR, OTHERS = "load generator", "other processes"
MAX_DISTURBED = 0.05  # of the cores
MAX_LATE_SHARE = 0.001
MAX_FINAL_P95_S = 1.0


@dataclass(frozen=True)
class CapacitySettings:
    checkpoint: Path | None
    url: str | None = None
    dtype: str = "bfloat16"
    device: str = "cpu"
    latency_ms: int = 320
    packet_ms: int | None = None  # None: one packet a chunk
    streams: int | None = None  # one run with so many; None: search
    first: int = 1  # of the search
    most: int = 64  # streams, and slots of each instance
    instances: int = 1  # of the server's model for live streams
    duration_s: float = 120.0
    probe_s: float = 20.0
    generators: int = 1  # processes
    retries: int = 2  # of runs that fail while something else disturbs them


def run(settings: CapacitySettings) -> dict:
    """One run, or a search for C120; every run is a row of the report."""
    s = settings
    slots = max(s.most, s.streams or 0)
    chosen = {"device": s.device, "dtype": s.dtype, "slots": slots, "instances": s.instances}
    with serving(s.checkpoint, s.url, **chosen) as target:
        runner = Runner(target, s)
        runner.warm_up()
        if s.streams is not None:
            rows, c120 = [runner.run(s.streams, s.duration_s, "run")], None
        else:
            c120 = search(runner, s)
            rows = runner.rows
        used = {**vars(s), "packet_ms": runner.packet_ms, "server": target.version}
    return make_report("capacity", {**used, "c120": c120}, rows, METHOD)


def search(runner: Runner, settings: CapacitySettings) -> int:
    """The largest count that passes `duration_s`, from what passes `probe_s`."""

    def passes(count: int, duration_s: float, kind: str) -> bool:
        for attempt in range(settings.retries + 1):
            if attempt:
                wait_calm(MAX_DISTURBED)
            row = runner.run(count, duration_s, kind)
            if row["passes"] or not row["disturbed"]:
                break
        return row["passes"]

    def probe(count: int) -> bool:
        return passes(count, settings.probe_s, "probe")

    count = largest_passing(probe, settings.first, settings.most)
    while count and not passes(count, settings.duration_s, "confirmation"):
        count = min(count - 1, int(0.95 * count))
    return count


class Runner:
    """Runs of one server with one kind of packets."""

    def __init__(self, target: Target, settings: CapacitySettings):
        self.rows: list[dict] = []
        self.packet_ms = settings.packet_ms or settings.latency_ms
        self._target = target
        self._generators = settings.generators
        self._spec = LoadSpec(
            target.grpc, 1, settings.latency_ms, self.packet_ms, hopeless_lag_s=HOPELESS_S
        )

    def warm_up(self) -> None:
        """Nothing is measured before a first stream has been answered."""
        duration_s = max(3.0, 3 * self._spec.latency_ms / 1000)
        run_load(replace(self._spec, duration_s=duration_s))

    def run(self, count: int, duration_s: float, kind: str) -> dict:
        """One run with `count` streams; its row."""
        self._target.wait_idle()
        spec = replace(self._spec, num_streams=count, duration_s=duration_s)
        seen: list[Clock] = []

        def note() -> None:
            seen.append(self._target.clock())

        processes = min(count, self._generators)
        result = run_load(spec, processes, at=[(0.0, note), (duration_s, note)])
        row = {"kind": kind, "streams": count, "duration_s": duration_s, **summarise(spec, result)}
        row["cores"] = cores = seen[1].cores_since(seen[0])
        cores[GENERATOR] = round(result.generator_cpu_s / duration_s, 3)
        named = sum(value for name, value in cores.items() if name not in (MACHINE, STOLEN))
        cores[OTHERS] = round(max(0.0, cores[MACHINE] - named), 3)
        limit = MAX_DISTURBED * len(os.sched_getaffinity(0))
        row["disturbed"] = max(cores[OTHERS], cores[STOLEN]) > limit
        row["rss_mb"] = {name: round(mb) for name, mb in self._target.rss_mb().items()}
        self.rows.append(row)
        say(_progress(row))
        return row


def summarise(spec: LoadSpec, result: LoadResult) -> dict:
    """What a run says about the server."""
    lags_s, finals_s = result.chunk_lags_s, result.final_lags_s
    late = share_late(lags_s, spec.latency_ms / 1000)
    chunks = len(lags_s) + result.missing
    share = (late * len(lags_s) + result.missing) / max(1, chunks)
    final_p95_s = percentile(finals_s, 95) if finals_s else None
    passes = (
        not result.errors
        and share <= MAX_LATE_SHARE
        and final_p95_s is not None
        and final_p95_s <= MAX_FINAL_P95_S
    )
    return {
        "passes": passes,
        "chunks": chunks,
        "late_share": round(share, 6),
        **{f"lag_p{p}_ms": _ms(lags_s, p) for p in (50, 95, 99, 100)},
        **{f"final_p{p}_ms": _ms(finals_s, p) for p in (50, 95)},
        "send_p99_ms": _ms(result.send_lags_s, 99),
        "packets": result.num_packets,
        "text_chars": result.text_chars,
        "errors": result.errors[:3],
    }


def _ms(values_s: list[float], percent: float) -> float | None:
    return round(1000 * percentile(values_s, percent), 2) if values_s else None


def _progress(row: dict) -> str:
    verdict = "passes" if row["passes"] else "fails"
    verdict += ", disturbed" if row["disturbed"] else ""
    return (
        f"{row['kind']} of {row['streams']} streams, {row['duration_s']:g} s: {verdict}, "
        f"{100 * row['late_share']:.2f} % late, p99 {row['lag_p99_ms']} ms"
    )


def table(report: dict) -> TextTable:
    settings = report["settings"]
    what = f"{settings['latency_ms']} ms chunks, packets of {settings['packet_ms']} ms"
    columns = ["run", "streams", "s", "late %", "lag p50 ms", "p95", "p99", "max"]
    columns += ["final p50", "p95", "server", "Python", "generator", "others", "stolen", "passes"]
    lines = []
    for row in report["rows"]:
        lags = [row[f"lag_p{p}_ms"] for p in (50, 95, 99, 100)]
        finals = [row[f"final_p{p}_ms"] for p in (50, 95)]
        cores = row["cores"]
        streaming = [used for name, used in cores.items() if name.split()[0] == STREAMING]
        python = sum(streaming) if streaming else None
        used = [cores.get(SERVER), python]
        used += [cores.get(name) for name in (GENERATOR, OTHERS, STOLEN)]
        first = [row["kind"], row["streams"], row["duration_s"], 100 * row["late_share"]]
        verdict = "yes" if row["passes"] else "disturbed" if row["disturbed"] else "no"
        lines.append([*first, *lags, *finals, *used, verdict])
    found = "" if settings["c120"] is None else f"C120 = {settings['c120']} streams; "
    instances = settings.get("instances", 1)  # not in older reports
    what += f", {instances} instances" if instances > 1 else ""
    title = f"{found}{what}, {settings['dtype']}; cores used, of {report['hardware']['cores']}"
    return TextTable(title, columns, lines)
