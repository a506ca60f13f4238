"""`asr batch`: a manifest to records, from the beginning or from where the last run ended."""

from __future__ import annotations

import hashlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
from click.core import ParameterSource

from asr_client.option_flags import option_flags
from nemotron_asr.errors import INVALID_ARGUMENT
from nemotron_asr.options import FILE
from nemotron_asr.settings import DEVICES, DTYPES

from .errors import BatchError
from .manifest import OPTIONS, Manifest
from .output import Output
from .pool import Pool
from .progress import Report
from .records import Record
from .settings import WorkerSettings

_SETTINGS = WorkerSettings(checkpoint="")
_POSITIVE = click.FloatRange(min=0, min_open=True)
SHOWN = {"show_default": True}
MAX_FAILURES = 50  # in a row: then it is not the files


class Stopped(KeyboardInterrupt):
    """A signal that asks the run to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@click.command()
@click.argument("manifest")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="OUT.jsonl, a file, or OUT.parquet, a folder. A run goes on where its output ends.",
)
@click.option("--words/--no-words", default=False, help="Words with their times.", **SHOWN)
@option_flags(FILE, default_latency_ms=1120)
@click.option("--ignore", multiple=True, metavar="FIELD", help="A field of the rows to pass over.")
@click.option(
    "--checkpoint",
    envvar="ASR_CHECKPOINT",
    type=click.Path(path_type=Path),
    help="A directory or a .nemo file.  [default: the bundled one]",
)
@click.option("--device", type=click.Choice(DEVICES), envvar="ASR_DEVICE", default="auto", **SHOWN)
@click.option("--dtype", type=click.Choice(DTYPES), envvar="ASR_DTYPE", default="float32", **SHOWN)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes, each with the weights.  [default: 1; with --ray as many as have room]",
)
@click.option(
    "--threads",
    type=click.IntRange(0, 1024),
    envvar="ASR_THREADS",
    default=0,
    help="Of each worker on the CPU; 0: the cores, shared out.",
    **SHOWN,
)
@click.option(
    "--readers",
    type=click.IntRange(1, 256),
    default=_SETTINGS.readers,
    help="Files that each worker fetches and decodes at a time.",
    **SHOWN,
)
@click.option(
    "--window-s",
    type=_POSITIVE,
    default=_SETTINGS.window_s,
    help="Audio that each worker reads ahead, 64 kB a second: batches are of like length in it.",
    **SHOWN,
)
@click.option(
    "--max-file-s",
    type=_POSITIVE,
    envvar="ASR_MAX_FILE_S",
    default=_SETTINGS.max_file_s,
    help="The longest recording that is taken.",
    **SHOWN,
)
@click.option(
    "--timeout-s",
    type=_POSITIVE,
    default=_SETTINGS.timeout_s,
    help="The longest wait for one file by HTTP.",
    **SHOWN,
)
@click.option(
    "--retries",
    type=click.IntRange(0, 20),
    default=_SETTINGS.retries,
    help="Of a file that cannot be read now.",
    **SHOWN,
)
@click.option(
    "--max-failures",
    type=click.IntRange(0),
    default=MAX_FAILURES,
    help="Files in a row that are gone, unreadable or bring the model down, at which the run fails "
    "without a record of them; 0: any number.",
    **SHOWN,
)
@click.option(
    "--ray",
    "ray_address",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Run on a Ray cluster: the one that runs here, the one at ADDRESS, or `local`.",
)
@click.option("--num-cpus", type=_POSITIVE, default=1.0, help="With --ray: of a worker.", **SHOWN)
@click.option(
    "--num-gpus",
    type=click.FloatRange(min=0),
    help="With --ray: of a worker.  [default: 1, where the cluster has GPUs]",
)
@click.pass_context
def batch(
    ctx: click.Context,
    manifest: str,
    output: Path,
    words: bool,
    ignore: tuple[str, ...],
    checkpoint: Path | None,
    workers: int | None,
    max_failures: int,
    ray_address: str | None,
    num_cpus: float,
    num_gpus: float | None,
    **values,
) -> None:
    """Transcribe what MANIFEST lists: JSON lines with `audio`, CSV, or a path or URL a line.

    Every row gets one record, a file that fails as well. The exit code is 0 when all have one, 1
    when the run failed, 130 or 143 when it was stopped: the same command goes on.
    """
    given = {name: values.pop(name) for name in OPTIONS}
    options = {
        name: value
        for name, value in given.items()
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    if ray_address is None:
        workers = workers or 1
        values["threads"] = values["threads"] or _share_of_cores(workers)
    try:
        settings = WorkerSettings(
            checkpoint=str(_checkpoint(checkpoint)),
            options=options,
            words=words,
            profanity_file=os.environ.get("ASR_PROFANITY_FILE", ""),
            **values,
        )

        def runner():
            if ray_address is None:
                return Pool(settings, workers)
            return _ray(settings, ray_address, workers, num_cpus, num_gpus)

        run(Manifest(manifest, ignore), output, settings, runner, max_failures)
    except BatchError as error:
        raise click.ClickException(str(error)) from error
    except Stopped as stopped:
        click.echo("stopped; the same command goes on from here", err=True)
        ctx.exit(128 + stopped.number)


def run(
    manifest: Manifest,
    path: Path,
    settings: WorkerSettings,
    runner: Callable,
    max_failures: int = MAX_FAILURES,
) -> None:
    """Write the records that are missing.  runner: makes a context manager with `run`.

    So many files in a row that fail for no fault of their own (storage that is away, a broken GPU)
    get no record, so that the next run tries them again.
    Raises BatchError, and Stopped at a signal.
    """
    common = {"checkpoint": Path(settings.checkpoint).name, "dtype": settings.dtype}
    common |= {"options": settings.options, "words": settings.words}
    common |= {"manifest_folder": manifest.folder}  # what relative paths mean
    common |= {"profanity_sha256": _sha256(settings.profanity_file)}
    with Output(path, common) as output:
        ids = manifest.scan()
        done = np.fromiter((hash(row_id) for row_id in output.done()), np.int64)
        todo = ~np.isin(ids, done)
        report = Report(len(todo), len(todo) - int(todo.sum()))
        failures: list[Record] = []  # in a row
        try:
            if todo.any():
                # Twice, as Ray takes SIGTERM when it starts.
                with stoppable(), runner() as source, report, stoppable():
                    for index, record in source.run(manifest.rows(ids, todo), int(todo.sum())):
                        if todo[index]:  # Ray may have done a block twice
                            todo[index] = False
                            report.add(record)
                            failures.append(record)
                            if not (max_failures and _is_none_of_the_file(record)):
                                _write(output, failures)
                            elif len(failures) == max_failures:
                                raise _too_many(failures)
                _write(output, failures)
        finally:
            click.echo(report.summary(), err=True)
    if todo.any():
        raise BatchError(
            f"{int(todo.sum())} rows have no record; the same command tries them again"
        )


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise Stopped."""

    def stop(number: int, _frame) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(output: Output, records: list[Record]) -> None:
    for record in records:
        output.write(record)
    records.clear()


def _is_none_of_the_file(record: Record) -> bool:
    """Whether it failed, and the reason may be elsewhere."""
    return record["error"] is not None and record["error"]["code"] != INVALID_ARGUMENT


def _too_many(failures: list[Record]) -> BatchError:
    codes = Counter(record["error"]["code"] for record in failures)
    last = failures[-1]
    return BatchError(
        f"{len(failures)} files in a row failed, {', '.join(codes)}, the last {last['id']!r}: "
        f"{last['error']['message']}. They have no record: the same command tries them again, and "
        "--max-failures 0 gives them one"
    )


def _sha256(path: str) -> str | None:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else None
    except OSError as error:
        raise BatchError(f"{path}: {error.strerror}") from error


def _share_of_cores(workers: int) -> int:
    """0, torch's own choice, for one."""
    return max(1, (os.cpu_count() or 1) // workers) if workers > 1 else 0


def _checkpoint(given: Path | None) -> Path:
    if given is not None:
        return given.resolve()
    from asr_server import SettingsError, default_checkpoint

    try:
        return default_checkpoint().resolve()
    except SettingsError as error:
        raise BatchError(str(error)) from error


def _ray(settings: WorkerSettings, *arguments):
    try:
        from .ray_runner import RayRunner
    except ImportError as error:
        raise BatchError(f'--ray needs Ray ({error}): pip install -e ".[ray]"') from error
    return RayRunner(settings, *arguments)
