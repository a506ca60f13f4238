"""`asr stream`: one file, pipe or microphone as a live stream; words appear as they are fixed."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from click.core import ParameterSource
from rich.console import Console
from rich.live import Live
from rich.text import Text

from nemotron_asr.options import LIVE
from nemotron_asr.pcm import ENCODINGS, PCM16

from . import audio
from .audio import AudioFormat
from .errors import ClientError
from .live import DEFAULT_URL, LiveStream
from .option_flags import option_flags
from .results import Result, Segment, Transcript

_STDIN = "-"
_MIC_ENDPOINT_MS = 800  # a pause between sentences; shorter ones are within them


@click.command()
@click.argument("source", metavar="FILE|-", required=False)
@click.option("--mic", is_flag=True, help="Listen to the microphone instead of a file.")
@option_flags(LIVE, default_latency_ms=320)
@click.option(
    "--encoding",
    type=click.Choice(ENCODINGS),
    default=PCM16,
    show_default=True,
    help="Of raw samples from stdin; mulaw and alaw are the telephone's.",
)
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
@click.option(
    "--reconnect-s",
    type=click.FloatRange(min=0),
    default=120,
    show_default=True,
    help="How long to try where the server is lost; nothing that was said is. 0: give up at once.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per result, with words.")
@click.pass_context
def stream(
    ctx: click.Context,
    source: str | None,
    mic: bool,
    encoding: str,
    url: str,
    fast: bool,
    packet_ms: int,
    reconnect_s: float,
    as_json: bool,
    **options,
) -> None:
    """Transcribe live; words appear as they are fixed.

    FILE is a recording, converted here; "-" is raw samples from stdin, of --rate, --channels and
    --encoding. Ctrl-C ends the stream and prints what remains.

    With --endpoint-ms or --max-utterance-ms each utterance becomes a line: when it began, its
    language, its text. --mic does that by itself, with --endpoint-ms 800; 0 turns it off.
    """
    format = AudioFormat(options["sample_rate"], options["channels"], encoding)
    if mic == (source is not None):
        raise click.UsageError("give either FILE (or - for stdin), or --mic")
    if not mic and source != _STDIN and not Path(source).is_file():
        raise click.BadParameter(f"no such file: {source}", param_hint="FILE")
    if source not in (_STDIN, None) and format != audio.MODEL_FORMAT:
        raise click.UsageError("--rate, --channels and --encoding are for - and --mic, not a FILE")
    if mic and encoding != PCM16:
        raise click.UsageError("--encoding is for raw samples from stdin (-)")
    if mic and ctx.get_parameter_source("endpoint_ms") is ParameterSource.DEFAULT:
        options["endpoint_ms"] = _MIC_ENDPOINT_MS
    try:
        packets = _first_read(_packets(source, mic, packet_ms, format))
        if not mic and not fast:
            packets = audio.paced(packets, format)
        with LiveStream(url, words=as_json, reconnect_s=reconnect_s, **options) as live:
            _say(f"streaming {'the microphone' if mic else source} to {live.url}; Ctrl-C ends")
            live.feed(packets)
            utterances = options["endpoint_ms"] or options["max_utterance_ms"]
            kind = JsonPrinter if as_json else UtterancePrinter if utterances else TextPrinter
            _summary(_show_results(live, kind()))
    except ClientError as error:
        raise click.ClickException(str(error)) from error


def _packets(
    source: str | None, mic: bool, packet_ms: int, format: AudioFormat
) -> Iterator[np.ndarray]:
    if mic:
        return audio.microphone_packets(packet_ms, format)
    if source == _STDIN:
        return audio.pipe_packets(sys.stdin.buffer, packet_ms, format)
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


class UtterancePrinter:
    """Prints each utterance as a line once it has ended; a terminal shows it while it grows."""

    def __init__(self):
        self._console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
        self._running = ""
        self._growing = Live(console=self._console, auto_refresh=False, transient=True)
        if self._console.is_terminal:
            self._growing.start()

    def show(self, result: Result) -> None:
        for segment in result.segments:
            self._running += segment.text
            if segment.is_final:
                self._console.print(_line(segment, self._running))
                self._console.file.flush()
                self._running = ""
        if self._growing.is_started:
            self._growing.update(Text(self._running.strip(), style="dim"), refresh=True)

    def close(self) -> None:
        """What has not ended, where the stream failed, is shown too."""
        self._growing.stop()
        if self._running:
            self._console.print(self._running.strip())


def _line(segment: Segment, text: str) -> str:
    """`   12.3 s  en-US  what was said`."""
    start_s = (segment.start_ms or 0) / 1000
    return f"{start_s:7.1f} s  {segment.language or '?':5}  {text.strip()}"


class JsonPrinter:
    """Prints each result as one line of JSON."""

    def show(self, result: Result) -> None:
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False))
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing to end: every line is complete."""


def _show_results(
    live: LiveStream, printer: TextPrinter | UtterancePrinter | JsonPrinter
) -> Transcript:
    """Show results until the stream ends. The first Ctrl-C ends it, a second one gives up."""
    try:
        try:
            for result in live.results():
                printer.show(result)
        except KeyboardInterrupt:
            live.end()
            for result in live.results():
                printer.show(result)
    finally:
        printer.close()
    return live.finish()


def _summary(transcript: Transcript) -> None:
    seconds = (transcript.audio_processed_ms or 0) / 1000
    _say(f"{seconds:.1f} s of audio, language {transcript.language or 'unknown'}")


def _say(message: str) -> None:
    """Status for people, on stderr: stdout carries the transcript and nothing else."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, style="dim", markup=False)
