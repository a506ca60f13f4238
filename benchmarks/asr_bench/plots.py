"""Plots of reports, as PNG files."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # without a display
import matplotlib.pyplot as plt

from .report import say

_STYLES = {"ours": ("C0", "o-"), "transformers": ("C1", "s-"), "floor": ("C2", "^--")}


def plot(report: dict, path: Path) -> None:
    """Draw a report, if there is something to draw for its kind."""
    draw = _DRAWN.get(report["benchmark"])
    if draw is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = draw(report)
    hardware, settings = report["hardware"], report["settings"]
    where = hardware["gpu"] or f"{hardware['cpu']}, {hardware['cores']} cores"
    parts = [where, settings.get("dtype"), report["date"][:10]]
    figure.suptitle("; ".join(filter(None, parts)), fontsize=9, y=1.02)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
    say(f"drawn: {path}")


def _chunk(report: dict):
    """The encoder's time of a stream's chunk over the batch, a panel for each lookahead."""
    panels: dict[int, dict] = defaultdict(lambda: defaultdict(dict))
    for row in report["rows"]:
        if row["part"] != "encoder":
            continue
        name = "floor" if row["contender"].startswith("floor") else row["contender"]
        lines, batch = panels[row["latency_ms"]][name], row["batch"]
        lines[batch] = min(row["min_ms"] / batch, lines.get(batch, float("inf")))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3 * len(panels), 3), sharey=True, squeeze=False
    )
    for axis, (latency_ms, lines) in zip(axes[0], sorted(panels.items()), strict=True):
        for i, (name, values) in enumerate(lines.items()):
            color, style = _STYLES.get(name, (f"C{3 + i}", "x:"))
            axis.plot(list(values), list(values.values()), style, color=color, label=name)
        axis.axhline(latency_ms, color="grey", linewidth=0.5)  # real time
        axis.set(title=f"{latency_ms} ms chunks", xlabel="batch", xscale="log", yscale="log")
        axis.set_xticks(list(values), list(values))
        axis.minorticks_off()
    axes[0][0].set_ylabel("encoder, ms a stream")
    axes[0][-1].legend(fontsize=8)
    return figure


def _capacity(report: dict):
    """Lags over the number of streams."""
    rows = sorted(report["rows"], key=lambda row: row["streams"])
    rows = [row for row in rows if row["lag_p50_ms"] is not None]
    figure, axis = plt.subplots(figsize=(5, 3.2))
    streams = [row["streams"] for row in rows]
    for percent in (50, 95, 99):
        lags_ms = [row[f"lag_p{percent}_ms"] for row in rows]
        axis.plot(streams, lags_ms, "o-", label=f"p{percent}")
    settings = report["settings"]
    axis.axhline(settings["latency_ms"], color="grey", linewidth=0.8, label="late")
    if settings["c120"]:
        axis.axvline(settings["c120"], color="C2", linestyle="--", label=f"C120 {settings['c120']}")
    axis.set(xlabel="live streams", ylabel="lag, ms", yscale="log",
             title=f"{settings['latency_ms']} ms chunks")  # fmt: skip
    axis.legend(fontsize=8)
    return figure


def _offline(report: dict):
    """How many times faster than real time."""
    rows = report["rows"]
    figure, axis = plt.subplots(figsize=(6, 0.35 * len(rows) + 1))
    names = [f"{row['case']}, {row['door']}" for row in rows][::-1]
    axis.barh(names, [1 / row["rtf"] for row in rows][::-1])
    axis.set(xlabel="times real time")
    return figure


def _wer(report: dict):
    """Over the lookahead, of whole sets offline, with their intervals."""
    lines: dict[tuple, list] = defaultdict(list)
    for row in report["rows"]:
        if row["door"] == "offline" and row["prompt"] == report["settings"]["prompts"][0]:
            lines[row["set"], row["language"]].append(row)
    figure, axis = plt.subplots(figsize=(6, 4))
    seen = set()
    for (set_name, language), rows in lines.items():
        if set_name in seen:  # the first row is that of the whole set
            continue
        seen.add(set_name)
        rows = sorted(rows, key=lambda row: row["latency_ms"])
        wer = [100 * row["wer"] for row in rows]
        below = [100 * (row["wer"] - row["wer_low"]) for row in rows]
        above = [100 * (row["wer_high"] - row["wer"]) for row in rows]
        axis.errorbar([row["latency_ms"] for row in rows], wer, yerr=[below, above], marker="o",
                      capsize=3, label=f"{set_name} ({language})")  # fmt: skip
    axis.set(xlabel="chunk, ms", ylabel="word error rate, %", ylim=(0, None))
    axis.legend(fontsize=8)
    return figure


def _confidence(report: dict):
    """The share of right words over the confidence said."""
    figure, axis = plt.subplots(figsize=(3.6, 3.6))
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for row in report["rows"]:
        said, right, _ = zip(*row["curve"], strict=True)
        axis.plot(said, right, "o-", markersize=3, label=f"{row['confidence']}, ECE {row['ece']}")
    axis.set(xlabel="confidence", ylabel="share of right words", xlim=(0, 1), ylim=(0, 1))
    axis.legend(fontsize=8)
    return figure


_DRAWN = {
    "chunk": _chunk,
    "capacity": _capacity,
    "offline": _offline,
    "wer": _wer,
    "confidence": _confidence,
}
