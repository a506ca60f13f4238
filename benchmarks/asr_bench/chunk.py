"""One chunk of live streams: front end, encoder, decoder and a whole round of the engine.

In steady state, with the left context full, on real features, at several batch sizes and every
lookahead; side by side with the reference in `transformers` and with the floor of `floor.py`.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from nemotron_asr import Recognizer, load_checkpoint
from nemotron_asr.config import SAMPLE_RATE, SUBSAMPLING, TOKEN_FRAME_MS

from .floor import Floor
from .report import TextTable, make_report, say
from .streams import EngineRound, OurStream, fill_rounds, speech_chunk, steady_chunks
from .timing import interleaved, stolen_s, summary

METHOD = """Random weights of the published sizes (or a checkpoint), one process, all contenders
turn by turn in it after one turn that does not count. Streams have been running for longer than the
left context, each on another stretch of real recordings. encoder: mel of one chunk to the joint's
input; ours with its caches in the arena of the engine, transformers with its own streaming caches.
floor: the call's weight matrices multiplied back to back, the faster of plain and packed by oneDNN.
decoder: greedy RNN-T on successive chunks' real outputs, mean of a chunk. round: what the engine
does for one packet of a chunk of every stream, from submit to reply. Ratios are of minima. On a GPU
a round replays CUDA graphs, as the engine does, with rows filled up; the parts run as they are."""
DECODED_S = 6.0  # of each stream, for the decoder
PARTS = ("front_end", "encoder", "decoder", "round")


@dataclass(frozen=True)
class ChunkSettings:
    checkpoint: Path
    dtype: str = "bfloat16"
    device: str = "cpu"
    lookaheads: tuple[int, ...] = (0, 1, 3, 6, 13)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    transformers: bool = True
    parts: tuple[str, ...] = PARTS
    repeats: int = 8


def run(settings: ChunkSettings) -> dict:
    """Measure everything; the report."""
    bench = ChunkBench(settings)
    rows = []
    with torch.inference_mode():
        for lookahead, batch in itertools.product(settings.lookaheads, settings.batches):
            case = {"lookahead": lookahead, "latency_ms": (lookahead + 1) * TOKEN_FRAME_MS,
                    "batch": batch}  # fmt: skip
            say(f"{case['latency_ms']} ms, batch {batch}")
            rows += [{**case, **row} for row in bench.measure(lookahead, batch)]
    used = {**settings.__dict__, "threads": torch.get_num_threads(), "floor_mb": bench.floor_mb}
    return make_report("chunk", used, rows, METHOD)


class ChunkBench:
    """The contenders, loaded once."""

    def __init__(self, settings: ChunkSettings):
        self._settings = settings
        dtypes = [settings.dtype] + (["bfloat16"] if settings.dtype == "int8" else [])
        self._ours: dict[str, Recognizer] = {
            "ours" if dtype == settings.dtype else f"ours_{dtype}": load_checkpoint(
                settings.checkpoint, settings.device, dtype
            )
            for dtype in dtypes
        }
        first = self._ours["ours"]
        self._device, self._config = first.device, first.config
        plain = torch.bfloat16 if settings.dtype == "int8" else getattr(torch, settings.dtype)
        weights = published_weights(settings.checkpoint, first, plain)
        self._floor = Floor(self._config, weights)
        self._theirs = None
        if settings.transformers:
            from .reference_model import load_reference, reference_extractor

            self._theirs = load_reference(settings.checkpoint, weights, plain, self._device)
            self._extractor = reference_extractor(self._config.features)

    @property
    def floor_mb(self) -> float:
        return round(self._floor.num_bytes / 1e6, 1)

    def measure(self, lookahead: int, batch: int) -> list[dict]:
        """Rows of one case: part, contender and times."""
        rows = []
        began_s, stolen_before_s = time.monotonic(), stolen_s()
        for part in self._settings.parts:
            rows += getattr(self, f"_{part}")(lookahead, batch)
        stolen = (stolen_s() - stolen_before_s) / (time.monotonic() - began_s)
        return [{**row, "stolen_cores": round(stolen, 3)} for row in rows]

    def _rows(self, part: str, calls: dict[str, Callable[[], object]], **extra) -> list[dict]:
        times = interleaved(calls, self._settings.repeats, self._device)
        return [
            {"part": part, "contender": name, **summary(own), **extra}
            for name, own in times.items()
        ]

    def _front_end(self, lookahead: int, batch: int) -> list[dict]:
        chunks = steady_chunks(lookahead, batch, self._config.default_prompt_id)
        ours = self._ours["ours"]
        calls = {"ours": lambda: ours.features(chunks, lookahead + 1)}
        if self._theirs is not None:
            heard = 400 + SUBSAMPLING * (lookahead + 1) * 160  # as its streaming loop takes it
            audio = [chunk.samples[-heard:] for chunk in chunks]
            calls["transformers"] = lambda: self._extractor(
                audio,
                sampling_rate=SAMPLE_RATE,
                center=False,
                is_first_audio_chunk=False,
                return_tensors="pt",
            ).input_features.to(self._device)
        return self._rows("front_end", calls)

    def _encoder(self, lookahead: int, batch: int) -> list[dict]:
        prompt = self._config.default_prompt_id
        streams = {name: OurStream(r, lookahead, batch, prompt) for name, r in self._ours.items()}
        if self._theirs is not None:
            from .reference_model import ReferenceStream

            streams["transformers"] = ReferenceStream(self._theirs, lookahead, prompt)
        mels = [self._mel(lookahead, batch, index) for index in range(fill_rounds(lookahead) + 1)]
        steady = mels[-1]
        outputs = {}
        for name, stream in streams.items():
            stream.step(mels[0][:, SUBSAMPLING - 1 :] if name == "transformers" else mels[0])
            for mel in mels[1:]:
                outputs[name] = stream.step(mel)
        calls = {
            name: lambda stream=stream: stream.step(steady) for name, stream in streams.items()
        }
        rows = self._rows("encoder", {**calls, **self._floor.calls(batch, lookahead + 1)})
        for row in rows:
            if row["contender"] in outputs:
                row["difference"] = _difference(outputs["ours"], outputs[row["contender"]])
        return rows

    def _decoder(self, lookahead: int, batch: int) -> list[dict]:
        rows = []
        for name, recognizer in self._ours.items():
            frames = lookahead + 1
            count = max(2, round(DECODED_S * 1000 / TOKEN_FRAME_MS / frames))
            encoded = self._encoded(recognizer, lookahead, batch, count)
            tokens = 0

            def decode(recognizer=recognizer, encoded=encoded, frames=frames) -> None:
                nonlocal tokens
                state, tokens = recognizer.fresh_prediction(batch), 0
                for index, f in enumerate(encoded):
                    first = [index * frames] * batch
                    found = recognizer.decode(f, [frames] * batch, first, state)
                    tokens += sum(map(len, found))

            repeats = max(3, self._settings.repeats // 2)
            times = interleaved({name: decode}, repeats, self._device)[name]
            per_chunk = summary([elapsed_ms / count for elapsed_ms in times])
            rate = tokens / (batch * count * frames * TOKEN_FRAME_MS / 1000)
            row = {"part": "decoder", "contender": name, **per_chunk}
            rows.append({**row, "tokens_per_s": round(rate, 2)})
        return rows

    def _encoded(self, recognizer: Recognizer, lookahead: int, batch: int, count: int) -> list:
        """The joint's inputs of successive chunks, (B, E, J) each."""
        stream = OurStream(recognizer, lookahead, batch, self._config.default_prompt_id)
        return [stream.step(self._mel(lookahead, batch, index)) for index in range(count)]

    def _mel(self, lookahead: int, batch: int, index: int) -> torch.Tensor:
        """Of the chunk with this index, (B, 8 E, M)."""
        first = index * (lookahead + 1)
        chunks = [speech_chunk(row, first, lookahead + 1, 0) for row in range(batch)]
        return self._ours["ours"].features(chunks, lookahead + 1)

    def _round(self, lookahead: int, batch: int) -> list[dict]:
        rounds = {
            name: EngineRound(recognizer, lookahead, batch)
            for name, recognizer in self._ours.items()
        }
        for _ in range(fill_rounds(lookahead)):
            for engine_round in rounds.values():
                engine_round()
        return self._rows("round", dict(rounds))


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference of two outputs, in standard deviations of theirs."""
    theirs = theirs.float()
    return round(float((ours.float() - theirs).abs().max() / theirs.std()), 6)


def published_weights(
    checkpoint: Path, recognizer: Recognizer, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors in this dtype; shared with our model where it keeps them so."""
    own = recognizer.net.state_dict()
    weights = {}
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            mine = own.get(name)
            shape = tuple(file.get_slice(name).get_shape())
            if mine is not None and tuple(mine.shape) == shape and mine.dtype == dtype:
                weights[name] = mine
            else:
                weights[name] = file.get_tensor(name).to(recognizer.device, dtype)
    return weights


def table(report: dict) -> TextTable:
    """One line a case; minima in ms."""
    cases: dict[tuple, dict] = defaultdict(dict)
    for row in report["rows"]:
        cases[row["latency_ms"], row["batch"]][row["part"], row["contender"]] = row
    contenders = {row["contender"] for row in report["rows"]}
    other = next((name for name in sorted(contenders) if name.startswith("ours_")), None)
    columns = ["chunk", "front", "theirs", "encoder", "median", "floor", "theirs", "/floor",
               "theirs/", "decoder", "tok/s", "round", "/stream", "stolen"]  # fmt: skip
    columns += ["encoder bf16", "round bf16"] if other else []
    lines = []
    for (latency_ms, batch), rows in cases.items():
        line = _line(rows, batch)
        if other:
            line += [_ms(rows, part, other) for part in ("encoder", "round")]
        lines.append([f"{latency_ms:>4} x {batch}", *line])
    settings = report["settings"]
    title = f"one chunk, ms (minimum), {settings['dtype']}, {report['hardware']['cpu']}, " \
            f"{settings['threads']} threads"  # fmt: skip
    return TextTable(title, columns, lines)


def _line(rows: dict, batch: int) -> list:
    floor = best_floor(rows)
    ours, theirs = (_ms(rows, "encoder", name) for name in ("ours", "transformers"))
    whole = _ms(rows, "round", "ours")
    return [
        _ms(rows, "front_end", "ours"),
        _ms(rows, "front_end", "transformers"),
        ours,
        _ms(rows, "encoder", "ours", "median_ms"),
        floor,
        theirs,
        ours / floor if ours and floor else None,
        theirs / ours if ours and theirs else None,
        _ms(rows, "decoder", "ours"),
        rows.get(("decoder", "ours"), {}).get("tokens_per_s"),
        whole,
        whole / batch if whole else None,
        next(iter(rows.values()))["stolen_cores"],
    ]


def best_floor(rows: dict) -> float | None:
    """The faster of the two ways."""
    ways = [_ms(rows, "encoder", name) for name in ("floor_plain", "floor_packed")]
    return min((way for way in ways if way), default=None)


def _ms(rows: dict, part: str, contender: str, key: str = "min_ms") -> float | None:
    return rows.get((part, contender), {}).get(key)
