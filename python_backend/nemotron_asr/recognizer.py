"""A loaded model that turns audio into tokens and text: what streaming and offline share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import recordings
from .biasing import Bias, Biases
from .chunks import Chunk, milliseconds
from .confidence import RAW, Calibration
from .config import (
    LOOKAHEAD_BY_LATENCY_MS,
    LOOKAHEADS,
    SUBSAMPLING,
    TOKEN_FRAME_MS,
    ModelConfig,
)
from .decoding import Token, greedy_decode, looping_decode
from .encoder import UNKNOWN_LENGTH, EncoderState, Positions
from .errors import invalid
from .features import LogMel, first_sample_of, num_mel_frames, span_of
from .model import NemotronAsr, PredictionState
from .options import AUTO, FILE, LIVE, Options, parse_options
from .text import TextAssembler, Utterance, Word, split_at_pauses
from .text_rules import WordList, text_rules


@dataclass(frozen=True)
class Transcription:
    """The result for one recording."""

    text: str
    words: list[Word]
    tokens: list[Token]
    language: str | None  # of the last tag that the model emitted
    num_samples: int
    utterances: list[Utterance] | None = None  # between pauses of `endpoint_ms`, where asked for

    def as_dict(self) -> dict:
        """RESULT on the wire."""
        result = {
            "text": self.text,
            "is_final": True,
            "segment": 0,
            "words": [word._asdict() for word in self.words],
            "language": self.language,
            "audio_processed_ms": milliseconds(self.num_samples),
        }
        if self.utterances is not None:
            same = {"is_final": True, "reason": "endpoint"}
            result["segments"] = [
                {"segment": i, **utterance.as_dict(), **same}
                for i, utterance in enumerate(self.utterances)
            ]
        return result


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
        self.calibration: Calibration = RAW  # of words' confidences
        self.offensive_words: WordList | None = None  # what `profanity` masks; None: bundled ones
        self.name = name
        self.device = device
        self.dtype = dtype
        if device.type == "cuda":
            _set_up_gpu()
        self.mel = LogMel(net.config.features).to(device)
        encoder = net.config.encoder
        supported = {*encoder.supported_num_lookahead_tokens, encoder.default_num_lookahead_tokens}
        supported.add(1)  # 160 ms: on the published model card, not in its configuration
        self.latencies_ms = tuple(
            ms for ms, lookahead in LOOKAHEAD_BY_LATENCY_MS.items() if lookahead in supported
        )
        self._positions: dict[int, Positions] = {}
        self.biases = Biases(pieces, prompts, device)

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
        return parse_options(parameters, self.languages, self.latencies_ms, default_ms, LIVE)

    def file_options(self, parameters: dict) -> Options:
        """Read a recording's parameters; the longest lookahead where none is given."""
        default_ms = max(self.latencies_ms)
        return parse_options(parameters, self.languages, self.latencies_ms, default_ms, FILE)

    def bias(self, options: Options, prompt_id: int) -> Bias | None:
        """What an utterance is drawn to by its phrases and languages; None where it has none.

        prompt_id: of the language that it is in; only with that of auto do `languages` matter.
        Raises AsrError INVALID_ARGUMENT for a phrase with letters that the model cannot write.
        """
        return self.biases.of(options, held=prompt_id == self.config.default_prompt_id)

    def fresh_encoder(self, batch: int, frames_per_call: int) -> EncoderState:
        return EncoderState.fresh(
            self.config.encoder, batch, frames_per_call, self.device, self.dtype
        )

    def fresh_prediction(self, batch: int) -> PredictionState:
        with torch.inference_mode():
            return self.net.decoder.fresh(batch)

    def positions(self, num_frames: int) -> Positions:
        """Positional keys for calls of so many frames: a table of its own for each live chunk.

        The stretches of recordings may have any number of frames: slices of one table.
        """
        made_for = num_frames
        if num_frames > max(LOOKAHEADS) + 1:
            made_for = recordings.FRAMES_PER_CALL
        if made_for not in self._positions:
            with torch.inference_mode():
                context = self.config.encoder.left_context
                self._positions[made_for] = self.net.encoder.position_keys(made_for, context)
        return self._positions[made_for].of_fewer(made_for, num_frames)

    @torch.inference_mode()
    def features(self, rows: Sequence[Chunk], num_frames: int) -> torch.Tensor:
        """Log-mel for `num_frames` encoder frames of each row, (B, 8 num_frames, M) float32."""
        num_mel = SUBSAMPLING * num_frames
        samples = np.zeros((len(rows), span_of(num_mel)), dtype=np.float32)
        for out, row in zip(samples, rows, strict=True):
            row.copy_samples(out, first_sample_of(row.first_mel))
        first_mel = [row.first_mel for row in rows]
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
        slots: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """mel: (B, 8 E, M).  num_mel: mel frames of each whole stream, None while it goes on.

        state: the streams' pasts, which this call moves on.  slots: the row of `state` that each
        has; the first B where not given.
        Returns the joint's input (B, E, J) float32.
        """
        ends = self._tensor([UNKNOWN_LENGTH if n is None else n for n in num_mel])
        positions = self.positions(mel.shape[1] // SUBSAMPLING)
        index = None if slots is None else self._tensor(slots)
        enc = self.net.encoder(mel, ends, lookahead, state, index, positions)
        return self.net.project(enc, self._tensor(prompt_ids))

    @torch.inference_mode()
    def decode(
        self,
        f: torch.Tensor,
        num_frames: list[int],
        first_frame: list[int],
        state: PredictionState,
        slots: list[int] | None = None,
        biases: list[Bias | None] | None = None,
    ) -> list[list[Token]]:
        """Greedy RNN-T on (B, E, J); see `greedy_decode`.

        Streams with a bias wait for the host after each symbol, also on a GPU, the others do not.
        """
        if self.device.type == "cpu":
            return greedy_decode(self.net, f, num_frames, first_frame, state, slots, biases)
        if biases is None or not any(biases):
            return looping_decode(self.net, f, num_frames, first_frame, state, slots)
        slots = list(range(len(num_frames))) if slots is None else slots
        tokens: list[list[Token]] = [[] for _ in num_frames]
        for biased in (True, False):
            rows = [b for b, bias in enumerate(biases) if bool(bias) == biased]
            if not rows:
                continue
            parts = ([x[b] for b in rows] for x in (num_frames, first_frame, slots, biases))
            valid, first, own, their = parts
            args = self.net, f[rows], valid, first, state, own
            new = greedy_decode(*args, their) if biased else looping_decode(*args)
            for b, row in zip(rows, new, strict=True):
                tokens[b] = row
        return tokens

    def step(
        self,
        rows: Sequence[Chunk],
        num_frames: int,
        lookahead: int,
        encoder: EncoderState,
        prediction: PredictionState,
        slots: list[int] | None = None,
    ) -> list[list[Token]]:
        """Audio to tokens for the next `num_frames` encoder frames of each row.

        The states are moved on, in the rows `slots` or in all of them. A row whose stream ends
        within the call emits nothing past its end. Returns the tokens of each row.
        """
        mel = self.features(rows, num_frames)
        num_mel = [None if r.num_samples is None else num_mel_frames(r.num_samples) for r in rows]
        f = self.encode(mel, num_mel, [r.prompt_id for r in rows], lookahead, encoder, slots)
        valid = [r.valid_frames(num_frames) for r in rows]
        first_frame, biases = [r.first_frame for r in rows], [r.bias for r in rows]
        return self.decode(f, valid, first_frame, prediction, slots, biases)

    def transcribe(
        self,
        audio: Sequence[np.ndarray],
        language: str = AUTO,
        latency_ms: int | None = None,
        *,
        languages: Sequence[str] | str = "",
        phrases: Sequence[str] | str = "",
        boost: float = Options.boost,
        endpoint_ms: int = 0,
    ) -> list[Transcription]:
        """Transcribe whole recordings: 16 kHz mono, float32 in [-1, 1] or int16, any length.

        latency_ms: one of `latencies_ms`; the longest, and so the most accurate, by default.
        languages: with auto, those that alone may be detected.
        phrases: words and phrases to expect; "Quilter^2" counts twice.  boost: how much they are
        favoured, in nats.  endpoint_ms: the pause between two of a result's `utterances`.
        Long ones go through in stretches of 9 to 18 s, so that memory does not grow with the square
        of their length. Raises AsrError INVALID_ARGUMENT for other arrays, NaN, or bad options.
        """
        parameters = {"language": language, "latency_ms": latency_ms}
        parameters |= {"languages": languages, "phrases": phrases, "boost": boost}
        parameters |= {"endpoint_ms": endpoint_ms}
        options = self.file_options({k: v for k, v in parameters.items() if v is not None})
        return self.transcribe_with(options, [check_samples(samples) for samples in audio])

    def transcribe_with(self, options: Options, audio: Sequence[np.ndarray]) -> list[Transcription]:
        """The same of `file_options` and of samples that are known to be good."""
        tokens = recordings.to_tokens(self, audio, options)
        return [self.finished(row, len(a), options) for row, a in zip(tokens, audio, strict=True)]

    def assembler(self, options: Options) -> TextAssembler:
        """What turns the tokens of one stream or file into the text that its caller wants."""
        return TextAssembler(
            self.pieces, text_rules(options, self.offensive_words), self.calibration
        )

    def finished(self, tokens: list[Token], num_samples: int, options: Options) -> Transcription:
        """Text, words and language of a whole recording's tokens."""
        assembler = self.assembler(options)
        body, tail = assembler.push(tokens), assembler.finish()
        text, words, tags = (b + t for b, t in zip(body, tail, strict=True))
        words = [word.until(milliseconds(num_samples)) for word in words]
        pause_ms = options.endpoint_ms
        return Transcription(
            text=text,
            words=words,
            tokens=tokens,
            language=assembler.language,
            num_samples=num_samples,
            utterances=split_at_pauses(text, words, pause_ms, tags) if pause_ms else None,
        )

    def _tensor(self, values) -> torch.Tensor:
        return torch.as_tensor(values).to(self.device)


def _set_up_gpu() -> None:
    """Settings of this process that the results on a GPU depend on."""
    # Float32 is float32, also in the prompt projection of a half-precision model: by default
    # convolutions take TensorFloat-32, of which 10 bits of the mantissa are left.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # On Hopper torch prefers cuDNN's attention, and hands it the mask as it is. For other kernels
    # it first copies one whose rows are not aligned, as those of the position scores are not.
    torch.backends.cuda.enable_cudnn_sdp(False)


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
