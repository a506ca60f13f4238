"""A loaded model that turns audio into tokens and text: what streaming and offline share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .config import (
    HOP,
    LOOKAHEAD_BY_LATENCY_MS,
    SAMPLE_RATE,
    SUBSAMPLING,
    TOKEN_FRAME_MS,
    ModelConfig,
)
from .decoding import Token, greedy_decode
from .encoder import UNKNOWN_LENGTH, EncoderState, num_encoder_frames
from .errors import invalid
from .features import FRAME_REACH, LogMel, num_mel_frames
from .model import NemotronAsr, PredictionState
from .options import AUTO, Options, parse_options
from .text import TextAssembler, Word

LEAD = SUBSAMPLING - 1  # mel frames before encoder frame 0's own; see encoder.py
FRAMES_PER_CALL = (
    112  # encoder frames of a recording that one call takes: a multiple of every chunk
)
ROWS_PER_CALL = 16  # recordings that one call takes
INT16_SCALE = 1.0 / 32768.0


@dataclass(frozen=True)
class Transcription:
    """The result for one recording."""

    text: str
    words: list[Word]
    tokens: list[Token]
    language: str | None  # of the last tag that the model emitted
    num_samples: int

    def as_dict(self) -> dict:
        """RESULT on the wire."""
        return {
            "text": self.text,
            "is_final": True,
            "segment": 0,
            "words": [word._asdict() for word in self.words],
            "language": self.language,
            "audio_processed_ms": self.num_samples * 1000 // SAMPLE_RATE,
        }


@dataclass
class Chunk:
    """One row of a call: the next encoder frames of one stream."""

    samples: np.ndarray  # float32 or int16 samples from `start_sample` on, as far as there are any
    start_sample: int  # their place in the stream
    first_frame: int  # encoder frames done before
    num_samples: int | None  # length of the whole stream, None while it goes on
    prompt_id: int


def samples_needed(num_frames: int) -> int:
    """Samples after which encoder frame `num_frames - 1` can be computed exactly.

    Its last mel frame, 8 (num_frames - 1), reaches 200 samples past its centre.
    """
    return HOP * SUBSAMPLING * (num_frames - 1) + FRAME_REACH


def first_sample_needed(num_frames: int, mel: LogMel) -> int:
    """The first sample that frames from `num_frames` on still look at; may be negative."""
    return mel.samples_for(SUBSAMPLING * num_frames - LEAD, 1)[0]


def total_frames(num_samples: int) -> int:
    """Encoder frames of a finished stream."""
    return num_encoder_frames(num_mel_frames(num_samples))


class Recognizer:
    """A checkpoint on a device. Holds no stream's state: calls take it and return it.

    Made by `load_checkpoint`, which also makes it with some of the parts only.
    """

    def __init__(
        self,
        net: NemotronAsr,
        pieces: Sequence[str],
        prompts: dict[str, int],
        name: str,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.net = net
        self.pieces = pieces
        self.prompts = prompts  # language -> prompt id
        self.name = name
        self.device = device
        self.dtype = dtype
        self.mel = LogMel(net.config.features).to(device)
        supported = {*net.config.encoder.supported_num_lookahead_tokens, 1}
        self.latencies_ms = tuple(
            ms for ms, lookahead in LOOKAHEAD_BY_LATENCY_MS.items() if lookahead in supported
        )
        self._positions: list[torch.Tensor] | None = None

    @property
    def config(self) -> ModelConfig:
        return self.net.config

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.prompts)

    def prompt_id(self, language: str) -> int:
        return self.config.default_prompt_id if language == AUTO else self.prompts[language]

    def live_options(self, parameters: dict) -> Options:
        """Read a stream's parameters; the checkpoint's default lookahead where none is given."""
        lookahead = self.config.encoder.default_num_lookahead_tokens
        default_ms = (lookahead + 1) * TOKEN_FRAME_MS
        return parse_options(parameters, self.languages, self.latencies_ms, default_ms)

    def file_options(self, parameters: dict) -> Options:
        """Read a recording's parameters; the longest lookahead where none is given."""
        default_ms = max(self.latencies_ms)
        return parse_options(parameters, self.languages, self.latencies_ms, default_ms)

    def fresh_encoder(self, batch: int) -> EncoderState:
        return EncoderState.fresh(self.config.encoder, batch, self.device, self.dtype)

    def fresh_prediction(self, batch: int) -> PredictionState:
        with torch.inference_mode():
            return self.net.decoder.fresh(batch)

    def positions(self, num_frames: int) -> list[torch.Tensor]:
        """Positional keys for calls of up to FRAMES_PER_CALL frames: slices of one table."""
        if self._positions is None:
            with torch.inference_mode():
                self._positions = self.net.encoder.position_keys(FRAMES_PER_CALL)
        first = FRAMES_PER_CALL - num_frames
        stop = first + self.config.encoder.left_context + 2 * num_frames - 1
        return [table[:, :, first:stop] for table in self._positions]

    @torch.inference_mode()
    def features(self, rows: Sequence[Chunk], num_frames: int) -> torch.Tensor:
        """Log-mel for `num_frames` encoder frames of each row, (B, 8 num_frames, M) float32."""
        num_mel = SUBSAMPLING * num_frames
        first_mel = [SUBSAMPLING * row.first_frame - LEAD for row in rows]
        ranges = [self.mel.samples_for(first, num_mel) for first in first_mel]
        samples = np.zeros((len(rows), ranges[0][1] - ranges[0][0]), dtype=np.float32)
        for out, row, (start, _) in zip(samples, rows, ranges, strict=True):
            _copy_range(out, start, row.samples, row.start_sample)
        ends = [UNKNOWN_LENGTH if row.num_samples is None else row.num_samples for row in rows]
        return self.mel(self._tensor(samples), self._tensor(first_mel), self._tensor(ends))

    @torch.inference_mode()
    def encode(
        self,
        mel: torch.Tensor,
        num_mel: Sequence[int | None],
        prompt_ids: Sequence[int],
        lookahead: int,
        state: EncoderState,
    ) -> tuple[torch.Tensor, EncoderState]:
        """mel: (B, 8 E, M).  num_mel: mel frames of each whole stream, None while it goes on.

        Returns the joint's input (B, E, J) float32 and the state for the next call.
        """
        ends = self._tensor([UNKNOWN_LENGTH if n is None else n for n in num_mel])
        positions = self.positions(mel.shape[1] // SUBSAMPLING)
        enc, state = self.net.encoder(mel, ends, lookahead, state, positions)
        return self.net.project(enc, self._tensor(prompt_ids)), state

    @torch.inference_mode()
    def decode(
        self,
        f: torch.Tensor,
        num_frames: list[int],
        first_frame: list[int],
        state: PredictionState,
    ) -> tuple[list[list[Token]], PredictionState]:
        """Greedy RNN-T on (B, E, J); see `greedy_decode`."""
        return greedy_decode(self.net, f, num_frames, first_frame, state)

    def step(
        self,
        rows: Sequence[Chunk],
        num_frames: int,
        lookahead: int,
        encoder: EncoderState,
        prediction: PredictionState,
    ) -> tuple[list[list[Token]], EncoderState, PredictionState]:
        """Audio to tokens for the next `num_frames` encoder frames of each row.

        A row whose stream ends within them emits nothing past its end. Returns the tokens of each
        row and the states for the next call.
        """
        mel = self.features(rows, num_frames)
        num_mel = [None if r.num_samples is None else num_mel_frames(r.num_samples) for r in rows]
        f, encoder = self.encode(mel, num_mel, [r.prompt_id for r in rows], lookahead, encoder)
        valid = [
            num_frames if r.num_samples is None
            else min(num_frames, max(0, total_frames(r.num_samples) - r.first_frame))
            for r in rows
        ]  # fmt: skip
        first = [r.first_frame for r in rows]
        tokens, prediction = self.decode(f, valid, first, prediction)
        return tokens, encoder, prediction

    def transcribe(
        self, audio: Sequence[np.ndarray], language: str = AUTO, latency_ms: int | None = None
    ) -> list[Transcription]:
        """Transcribe whole recordings: 16 kHz mono, float32 in [-1, 1] or int16, any length.

        latency_ms: one of `latencies_ms`; the longest, and so the most accurate, by default.
        Long ones go through in stretches of 9 s, so that memory does not grow with the square of
        their length. Raises AsrError INVALID_ARGUMENT for other arrays, NaN, or bad options.
        """
        parameters = {"language": language, "latency_ms": latency_ms or max(self.latencies_ms)}
        options = self.file_options(parameters)
        audio = [check_samples(samples) for samples in audio]
        results: dict[int, Transcription] = {}
        for group in _groups([len(samples) for samples in audio]):
            tokens = self._transcribe_group([audio[i] for i in group], options)
            for i, row in zip(group, tokens, strict=True):
                results[i] = self.assemble(row, len(audio[i]))
        return [results[i] for i in range(len(audio))]

    def _transcribe_group(self, audio: list[np.ndarray], options: Options) -> list[list[Token]]:
        """Recordings of falling length, every stretch from audio to tokens at once."""
        tokens: list[list[Token]] = [[] for _ in audio]
        encoder, prediction = self.fresh_encoder(len(audio)), self.fresh_prediction(len(audio))
        prompt, lookahead = self.prompt_id(options.language), options.lookahead
        totals = [total_frames(len(samples)) for samples in audio]
        for done, num_frames, live in _stretches(totals, lookahead):
            encoder, prediction = encoder.first(live), prediction.first(live)
            rows = [Chunk(samples, 0, done, len(samples), prompt) for samples in audio[:live]]
            new, encoder, prediction = self.step(rows, num_frames, lookahead, encoder, prediction)
            for row, more in zip(tokens, new, strict=False):
                row += more
        return tokens

    # The same in three steps, for an ensemble that runs them apart.

    def recording_features(self, samples: np.ndarray) -> torch.Tensor:
        """Mel frames from -7 on that a whole recording's E encoder frames want, (8 E, M)."""
        parts = [torch.zeros(0, self.config.features.feature_size, device=self.device)]
        for done, num_frames, _ in _stretches([total_frames(len(samples))], 0):
            row = Chunk(samples, 0, done, len(samples), 0)
            parts.append(self.features([row], num_frames)[0])
        return torch.cat(parts)

    def encode_recordings(
        self,
        mels: Sequence[torch.Tensor],
        num_samples: Sequence[int],
        prompt_ids: Sequence[int],
        lookahead: int,
    ) -> list[torch.Tensor]:
        """mels: (8 E, M) each, from `recording_features`.

        Returns the joint's input of each, (E, J).
        """
        results: list[list[torch.Tensor]] = [[] for _ in mels]
        for group in _groups(num_samples):
            encoder = self.fresh_encoder(len(group))
            totals = [total_frames(num_samples[i]) for i in group]
            for done, num_frames, live in _stretches(totals, lookahead):
                rows, encoder = group[:live], encoder.first(live)
                mel = _stack([mels[i] for i in rows], SUBSAMPLING * done, SUBSAMPLING * num_frames)
                num_mel = [num_mel_frames(num_samples[i]) for i in rows]
                prompts = [prompt_ids[i] for i in rows]
                f, encoder = self.encode(mel.to(self.device), num_mel, prompts, lookahead, encoder)
                for i, row, total in zip(rows, f, totals, strict=False):
                    results[i].append(row[: total - done])
        empty = torch.zeros(0, self.config.decoder_hidden_size, device=self.device)
        return [torch.cat([empty, *parts]) for parts in results]

    def decode_recordings(self, encoded: Sequence[torch.Tensor]) -> list[list[Token]]:
        """encoded: (E, J) each, from `encode_recordings`.  Returns the tokens of each."""
        tokens: dict[int, list[Token]] = {i: [] for i in range(len(encoded))}
        for group in _groups([len(f) for f in encoded]):
            prediction = self.fresh_prediction(len(group))
            totals = [len(encoded[i]) for i in group]
            for done, num_frames, live in _stretches(totals, 0):
                rows, prediction = group[:live], prediction.first(live)
                f = _stack([encoded[i] for i in rows], done, num_frames).to(self.device)
                valid = [min(num_frames, total - done) for total in totals[:live]]
                new, prediction = self.decode(f, valid, [done] * live, prediction)
                for i, more in zip(rows, new, strict=True):
                    tokens[i] += more
        return [tokens[i] for i in range(len(encoded))]

    def assemble(self, tokens: list[Token], num_samples: int) -> Transcription:
        """Text, words and language of a whole recording's tokens."""
        assembler = TextAssembler(self.pieces)
        body, tail = assembler.push(tokens), assembler.finish()
        return Transcription(
            text=body.text + tail.text,
            words=body.words + tail.words,
            tokens=tokens,
            language=assembler.language,
            num_samples=num_samples,
        )

    def _tensor(self, values) -> torch.Tensor:
        return torch.as_tensor(values).to(self.device)


def check_samples(samples: np.ndarray) -> np.ndarray:
    """Accept 1-D int16, float32 or float64 audio. Raises AsrError INVALID_ARGUMENT otherwise."""
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise invalid(f"audio of shape {samples.shape} is not supported; valid: one dimension")
    if samples.dtype == np.float64:
        samples = samples.astype(np.float32)
    if samples.dtype not in (np.int16, np.float32):
        raise invalid(f"audio of dtype {samples.dtype} is not supported; valid: int16, float32")
    if samples.dtype == np.float32:
        finite = np.isfinite(samples)
        if not finite.all():
            where = int(np.argmin(finite))
            raise invalid(f"sample {where} is {samples[where]}; valid: finite numbers")
    return samples


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in groups of at most ROWS_PER_CALL of like length, longest first."""
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(lengths), ROWS_PER_CALL):
        yield longest_first[start : start + ROWS_PER_CALL]


def _stretches(totals: Sequence[int], lookahead: int) -> Iterator[tuple[int, int, int]]:
    """Walk recordings of falling length together: (frames done, frames of this call, rows left).

    Calls take whole chunks. A recording that has ended leaves, so rows are always the first ones.
    """
    size = lookahead + 1
    per_call = FRAMES_PER_CALL // size * size
    done = 0
    while live := sum(total > done for total in totals):
        num_frames = min(per_call, math.ceil((totals[0] - done) / size) * size)
        yield done, num_frames, live
        done += num_frames


def _stack(tensors: Sequence[torch.Tensor], start: int, length: int) -> torch.Tensor:
    """Rows [start, start + length) of each, zeros behind their ends: (B, length, ...)."""
    parts = [x[start : start + length] for x in tensors]
    return torch.stack([F.pad(x, (0, 0, 0, length - len(x))) for x in parts])


def _copy_range(out: np.ndarray, start: int, samples: np.ndarray, start_sample: int) -> None:
    """Fill `out` with the stream's samples from `start` on, where `samples` has them."""
    low = max(start, start_sample)
    high = min(start + len(out), start_sample + len(samples))
    if low < high:
        part = samples[low - start_sample : high - start_sample]
        scale = INT16_SCALE if samples.dtype == np.int16 else 1.0
        np.multiply(part, scale, out=out[low - start : high - start], dtype=np.float32)
