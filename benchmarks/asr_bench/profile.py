"""Where the time of an engine's rounds goes, by operator."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from nemotron_asr import load_checkpoint
from nemotron_asr.config import TOKEN_FRAME_MS

from .report import TextTable, make_report
from .streams import EngineRound, fill_rounds
from .timing import timed

METHOD = """torch.profiler over rounds of the engine in steady state, each with one chunk of every
stream. On a CPU self times of operators, on a GPU times of kernels and copies, as those of a CUDA
graph belong to no operator. wall: of a round without the profiler. busy: all these times over the
wall time (on a CPU with several threads only the calling thread's are seen)."""
TOP = 25


@torch.inference_mode()
def run(
    checkpoint: Path,
    *,
    dtype: str,
    device: str,
    latency_ms: int,
    batch: int,
    rounds: int,
    trace: Path | None = None,
) -> dict:
    recognizer = load_checkpoint(checkpoint, device, dtype)
    lookahead = latency_ms // TOKEN_FRAME_MS - 1
    one_round = EngineRound(recognizer, lookahead, batch)
    for _ in range(fill_rounds(lookahead)):
        one_round()
    wall_ms = min(timed(one_round, recognizer.device) for _ in range(rounds))
    on_gpu = recognizer.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(rounds):
            one_round()
        if on_gpu:
            torch.cuda.synchronize()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [e for e in profiler.key_averages() if e.device_type == kind]
    events.sort(key=lambda e: -getattr(e, field))
    total_ms = sum(getattr(event, field) for event in events) / 1000 / rounds
    rows = [
        {
            "operator": event.key,
            "calls": round(event.count / rounds, 2),
            "self_ms": round(getattr(event, field) / 1000 / rounds, 4),
            "share": round(getattr(event, field) / 1000 / rounds / total_ms, 4),
        }
        for event in events[:TOP]
    ]
    used = {"checkpoint": checkpoint, "dtype": dtype, "device": device, "latency_ms": latency_ms,
            "batch": batch, "rounds": rounds, "threads": torch.get_num_threads(),
            "wall_ms": round(wall_ms, 3), "total_ms": round(total_ms, 3),
            "busy": round(total_ms / wall_ms, 3)}  # fmt: skip
    return make_report("profile", used, rows, METHOD)


def table(report: dict) -> TextTable:
    s = report["settings"]
    title = f"a round of {s['batch']} x {s['latency_ms']} ms, {s['dtype']} on {s['device']}: " \
            f"{s['wall_ms']} ms, busy {s['busy']}"  # fmt: skip
    lines = [[r["operator"][:60], r["calls"], r["self_ms"], 100 * r["share"]]
             for r in report["rows"]]  # fmt: skip
    return TextTable(title, ["operator", "calls a round", "self ms a round", "%"], lines)
