"""Transcripts as Riva's clients read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from riva.client.proto.riva_asr_pb2 import (
    RecognizeRequest,
    RecognizeResponse,
    SpeechRecognitionAlternative,
    StreamingRecognizeRequest,
    StreamingRecognizeResponse,
)

from asr_client.results import Result, Transcript, Word

STABILITY = 0.9  # of text that only grows; 1 is Riva's mark of an utterance that is about to end
_CHANNEL_TAG = 1  # the only one of a live stream; Riva counts from 1


class LiveResponses:
    """The responses of one stream: what an utterance says so far, and whole once it ends.

    Every transcript of a later utterance begins with a space, as Riva's: joined, the final ones
    are the text.
    """

    def __init__(self, first: StreamingRecognizeRequest):
        self._first = first
        self._interim = first.streaming_config.interim_results
        self._with_words = first.streaming_config.config.enable_word_time_offsets
        self._begin()

    def _begin(self) -> None:
        self._text, self._words = "", []
        self._language: str | None = None

    def of(self, result: Result) -> Iterator[StreamingRecognizeResponse]:
        """What a result leads to; each response has one result."""
        processed_s = (result.audio_processed_ms or 0) / 1000
        for piece in result.segments:
            self._text += piece.text
            self._words += piece.words
            self._language = piece.language or self._language
            if piece.is_final:
                yield from self._final(processed_s)
        if result.is_final:
            yield from self._final(processed_s)
        elif self._interim and self._text and any(piece.text for piece in result.segments):
            response = self._response(processed_s)
            response.results[0].stability = STABILITY
            response.results[0].alternatives.add(transcript=self._text)
            yield response

    def _final(self, processed_s: float) -> Iterator[StreamingRecognizeResponse]:
        """The end of the utterance, if it said something."""
        if self._text.strip():
            response = self._response(processed_s)
            response.results[0].is_final = True
            response.results[0].alternatives.append(
                _alternative(self._text, self._words, self._language, self._with_words)
            )
            yield response
        self._begin()

    def _response(self, processed_s: float) -> StreamingRecognizeResponse:
        response = StreamingRecognizeResponse()
        response.results.add(channel_tag=_CHANNEL_TAG, audio_processed=processed_s)
        if self._first.HasField("id"):
            response.id.CopyFrom(self._first.id)
        return response


def file_response(
    request: RecognizeRequest, transcripts: Sequence[Transcript]
) -> RecognizeResponse:
    """Of each channel's transcript one result, or one of each utterance where these were asked for.

    A result also where nothing was said: clients read the first without a look.
    """
    response = RecognizeResponse()
    if request.HasField("id"):
        response.id.CopyFrom(request.id)
    with_words = request.config.enable_word_time_offsets
    for channel, transcript in enumerate(transcripts, start=1):
        for i, piece in enumerate(transcript.segments or [transcript]):
            end_ms = piece.end_ms if transcript.segments else transcript.audio_processed_ms
            text = f" {piece.text}" if i else piece.text
            language = piece.language or transcript.language
            alternative = _alternative(text, piece.words, language, with_words)
            response.results.add(
                alternatives=[alternative],
                channel_tag=channel,
                audio_processed=(end_ms or 0) / 1000,
            )
    return response


def _alternative(
    text: str, words: Sequence[Word], language: str | None, with_words: bool
) -> SpeechRecognitionAlternative:
    """confidence: the mean of the words', from 0 to 1."""
    sure = [word.confidence for word in words if word.confidence is not None]
    alternative = SpeechRecognitionAlternative(
        transcript=text,
        confidence=sum(sure) / len(sure) if sure else 0.0,
        language_code=[language] if language else [],
    )
    for word in words if with_words else ():
        alternative.words.add(
            word=word.text,
            start_time=word.start_ms,
            end_time=word.end_ms,
            confidence=word.confidence or 0.0,
            language_code=language or "",
        )
    return alternative
