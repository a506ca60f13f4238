"""`asr transcribe`: files to text, JSON or subtitles, many at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nemotron_asr.options import FILE

from .errors import ClientError
from .formats import EXTENSIONS, FORMATS
from .offline import DEFAULT_TIMEOUT_S, DEFAULT_URL, OfflineClient
from .option_flags import option_flags
from .results import Transcript


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS)),
    default="text",
    show_default=True,
    help="Of the output; srt and vtt are subtitles.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write one file per input here, instead of stdout.",
)
@option_flags(FILE, default_latency_ms=1120)
@click.option(
    "--url",
    envvar="ASR_HTTP_URL",
    default=DEFAULT_URL,
    show_default=True,
    help="The server's HTTP endpoint.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_TIMEOUT_S,
    show_default=True,
    help="The longest wait for one file, the server's queue included.",
)
@click.pass_context
def transcribe(
    ctx: click.Context,
    files: tuple[Path, ...],
    format_name: str,
    output_dir: Path | None,
    url: str,
    concurrency: int,
    timeout_s: float,
    **options,
) -> None:
    """Transcribe audio files (WAV, FLAC, OGG, MP3, M4A, WebM and more).

    A file that fails is named on stderr and does not stop the others; the exit code is then 1.
    """
    outputs = _output_paths(files, format_name, output_dir)
    num_failed = 0
    try:
        with OfflineClient(url, timeout_s=timeout_s) as client:
            outcomes = client.transcribe_many(files, concurrency=concurrency, **options)
            for file, outcome in _in_order(files, _with_progress(outcomes, len(files))):
                num_failed += not _deliver(file, outcome, format_name, outputs, len(files))
    except ClientError as error:
        raise click.ClickException(str(error)) from error
    ctx.exit(1 if num_failed else 0)


def _output_paths(
    files: tuple[Path, ...], format_name: str, output_dir: Path | None
) -> dict[Path, Path] | None:
    """Where each file's result goes, None for stdout.  Refuses what would overwrite each other."""
    if output_dir is None:
        if len(files) > 1 and format_name in ("srt", "vtt"):
            raise click.UsageError(f"--format {format_name} with several files needs --output-dir")
        return None
    outputs: dict[Path, Path] = {}
    for file in dict.fromkeys(files):
        target = output_dir / f"{file.stem}.{EXTENSIONS[format_name]}"
        for other, taken in outputs.items():
            if taken == target:
                raise click.UsageError(f"{other} and {file} would both be written to {target}")
        outputs[file] = target
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"cannot make {output_dir}: {error.strerror}") from error
    return outputs


def _with_progress(outcomes: Iterator[tuple], total: int) -> Iterator[tuple]:
    """The same outcomes, with a progress bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("transcribing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # text above the bar; a file or pipe stays stdout
    )
    with progress:
        task = progress.add_task("", total=total)
        for outcome in outcomes:
            progress.advance(task)
            yield outcome


def _in_order(files: tuple[Path, ...], outcomes: Iterator[tuple]) -> Iterator[tuple]:
    """(file, outcome) in the order of the command line, each as soon as it is its turn."""
    done: dict[Path, list] = {}
    waiting = iter(files)
    next_file = next(waiting, None)
    for file, outcome in outcomes:
        done.setdefault(file, []).append(outcome)
        while next_file is not None and done.get(next_file):
            yield next_file, done[next_file].pop()
            next_file = next(waiting, None)


def _deliver(
    file: Path,
    outcome: Transcript | ClientError,
    format_name: str,
    outputs: dict[Path, Path] | None,
    num_files: int,
) -> bool:
    """Write or print one outcome.  False if the file failed.

    By `print`, which goes through the progress bar's stdout and stderr; `click.echo` goes around.
    """
    if isinstance(outcome, ClientError):
        message = str(outcome) if str(file) in str(outcome) else f"{file}: {outcome}"
        print(message, file=sys.stderr)
        return False
    if outputs is None:
        print(_for_stdout(file, outcome, format_name, num_files), end="", flush=True)
        return True
    try:
        outputs[file].write_text(FORMATS[format_name](outcome), encoding="utf-8")
    except OSError as error:
        print(f"{file}: cannot write {outputs[file]}: {error.strerror}", file=sys.stderr)
        return False
    return True


def _for_stdout(file: Path, transcript: Transcript, format_name: str, num_files: int) -> str:
    """One file: its format. Several: one line for each, with its name."""
    if num_files == 1:
        return FORMATS[format_name](transcript)
    if format_name == "json":
        line = {"file": str(file), **transcript.to_dict()}
        return json.dumps(line, ensure_ascii=False) + "\n"
    return f"{file}: {FORMATS['text'](transcript)}"
