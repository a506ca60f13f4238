"""Rows to records with a model: files are read ahead, batches are made of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import torch

from nemotron_asr import load_checkpoint, recordings
from nemotron_asr.config import SAMPLE_RATE
from nemotron_asr.errors import AsrError
from nemotron_asr.recognizer import Recognizer, Transcription
from nemotron_asr.text_rules import read_words

from .manifest import Row
from .reading import read_recording
from .records import Record, failed, transcribed
from .settings import WorkerSettings
from .window import Heard, Window

BATCH_ROWS = recordings.ROWS_PER_CALL
Numbered = tuple[int, Record]  # a row's index and its record


class Transcriber:
    """A model that was loaded once.  One `run` at a time."""

    def __init__(self, settings: WorkerSettings):
        """Raises AsrError or ValueError for options or a checkpoint that no recording can have."""
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.recognizer: Recognizer = load_checkpoint(
            settings.checkpoint, settings.device, settings.dtype
        )
        if settings.profanity_file:
            self.recognizer.offensive_words = read_words(settings.profanity_file)
        self._settings = settings
        options = self.recognizer.file_options(settings.options)
        self.recognizer.bias(options, self.recognizer.prompt_id(options.language))

    def run(self, rows: Iterable[Row]) -> Iterator[list[Numbered]]:
        """The record of every row, in the order in which they are ready, some at a time.

        Raises what the model raised for a recording alone, unless it was for want of memory: after
        an error a GPU may be of no more use to this process.
        """
        window = Window(self._settings.window_s, BATCH_ROWS)
        window.fill(iter(rows), self._read, self._settings.readers)
        try:
            for ready in window.batches():
                if bad := [heard for heard in ready if heard.error is not None]:
                    yield [(heard.row.index, failed(heard.row, heard.error)) for heard in bad]
                batches = like_length([heard for heard in ready if heard.error is None])
                del ready, bad  # a batch's audio goes when the batch is done
                while batches:
                    batch = batches.pop(0)
                    yield self._records(batch)
                    room_s = sum(heard.room_s for heard in batch)
                    del batch
                    window.free(room_s)
        finally:
            window.close()

    def _read(self, row: Row, make_room: Callable[[float], None]) -> Heard:
        try:
            options = self.recognizer.file_options({**self._settings.options, **row.options})
            samples = read_recording(row, options, self._settings, make_room)
        except Exception as error:  # of this row alone
            return Heard(row, error=error)
        return Heard(row, options, samples, room_s=len(samples) / SAMPLE_RATE)

    def _records(self, batch: list[Heard]) -> list[Numbered]:
        """batch: of the same options."""
        words = self._settings.words
        try:
            results = self._transcribe(batch)
        except AsrError as error:
            return [(heard.row.index, failed(heard.row, error)) for heard in batch]
        except Exception as error:
            if len(batch) == 1 and not _is_for_memory(error):
                raise
            if len(batch) == 1:
                return [(batch[0].row.index, failed(batch[0].row, error))]
        else:
            return [
                (heard.row.index, transcribed(heard.row, result, words))
                for heard, result in zip(batch, results, strict=True)
            ]
        # Out here the error is gone, and with it what the frames of its traceback held.
        return [record for heard in batch for record in self._records([heard])]

    def _transcribe(self, batch: list[Heard]) -> list[Transcription]:
        return self.recognizer.transcribe_with(batch[0].options, [one.samples for one in batch])


def _is_for_memory(error: Exception) -> bool:
    """torch has several types for it; the second text is that of its CPU allocator."""
    texts = ("out of memory", "allocate memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def like_length(heard: list[Heard]) -> list[list[Heard]]:
    """Batches of the same options, the longest first and each of like length."""
    batches = []
    by_options = sorted(heard, key=lambda one: repr(one.options))
    for _, same in groupby(by_options, key=lambda one: repr(one.options)):
        longest_first = sorted(same, key=lambda one: -len(one.samples))
        for start in range(0, len(longest_first), BATCH_ROWS):
            batches.append(longest_first[start : start + BATCH_ROWS])
    return batches
