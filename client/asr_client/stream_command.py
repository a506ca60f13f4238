"""`asr stream`: one file, pipe or microphone as a live stream; words appear as they are fixed."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from . import audio
from .errors import ClientError
from .live import DEFAULT_URL, LiveStream
from .results import Result, Transcript

_STDIN = "-"


@click.command()
@click.argument("source", metavar="FILE|-", required=False)
@click.option("--mic", is_flag=True, help="Listen to the microphone instead of a file.")
@click.option("--language", default="auto", show_default=True, help='Such as "en-US", or "auto".')
@click.option("--latency-ms", default=320, show_default=True, help="80, 160, 320, 560 or 1120.")
@click.option(
    "--url",
    envvar="ASR_GRPC_URL",
    default=DEFAULT_URL,
    show_default=True,
    help="The server's gRPC endpoint.",
)
@click.option("--fast", is_flag=True, help="Send as fast as the server takes it, not in real time.")
@click.option(
    "--packet-ms",
    type=click.IntRange(10, 10_000),
    default=80,
    show_default=True,
    help="Audio in one packet.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per result, with words.")
def stream(
    source: str | None,
    mic: bool,
    language: str,
    latency_ms: int,
    url: str,
    fast: bool,
    packet_ms: int,
    as_json: bool,
) -> None:
    """Transcribe live; words appear as they are fixed.

    FILE is anything that libsndfile reads; "-" is raw PCM16 (little-endian, 16 kHz, mono) from
    stdin. Ctrl-C ends the stream and prints what remains.
    """
    if mic == (source is not None):
        raise click.UsageError("give either FILE (or - for stdin), or --mic")
    if not mic and source != _STDIN and not Path(source).is_file():
        raise click.BadParameter(f"no such file: {source}", param_hint="FILE")
    try:
        packets = _first_read(_packets(source, mic, packet_ms))
        if not mic and not fast:
            packets = audio.paced(packets)
        with LiveStream(url, language=language, latency_ms=latency_ms, words=as_json) as live:
            _say(f"streaming {'the microphone' if mic else source} to {live.url}; Ctrl-C ends")
            live.feed(packets)
            _summary(_show_results(live, JsonPrinter() if as_json else TextPrinter()))
    except ClientError as error:
        raise click.ClickException(str(error)) from error


def _packets(source: str | None, mic: bool, packet_ms: int) -> Iterator[np.ndarray]:
    if mic:
        return audio.microphone_packets(packet_ms)
    if source == _STDIN:
        return audio.pipe_packets(sys.stdin.buffer, packet_ms)
    return audio.file_packets(source, packet_ms)


def _first_read(packets: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same packets, the first one read already: what is wrong shows before a stream is open."""
    first = list(itertools.islice(packets, 1))
    return itertools.chain(first, packets)


class TextPrinter:
    """Prints text as it comes, in one line; a terminal wraps it, a pipe gets it plain."""

    def __init__(self):
        self._console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
        self._printed = False

    def show(self, result: Result) -> None:
        self._console.print(result.text, end="")
        self._console.file.flush()
        self._printed = self._printed or bool(result.text)

    def close(self) -> None:
        """End the line, if there is one."""
        if self._printed:
            self._console.print()


class JsonPrinter:
    """Prints each result as one line of JSON."""

    def show(self, result: Result) -> None:
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False))
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing to end: every line is complete."""


def _show_results(live: LiveStream, printer: TextPrinter | JsonPrinter) -> Transcript:
    """Show results until the stream ends. The first Ctrl-C ends it, a second one gives up."""
    try:
        try:
            for result in live.results():
                printer.show(result)
        except KeyboardInterrupt:
            live.end()
            for result in live.results():
                printer.show(result)
    except ClientError:
        printer.close()
        raise
    printer.close()
    return live.finish()


def _summary(transcript: Transcript) -> None:
    seconds = (transcript.audio_processed_ms or 0) / 1000
    _say(f"{seconds:.1f} s of audio, language {transcript.language or 'unknown'}")


def _say(message: str) -> None:
    """Status for people, on stderr: stdout carries the transcript and nothing else."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, style="dim", markup=False)
