"""`asr bench`: benchmarks of the model and of the whole server.

Each command writes one JSON report (`--json`) and prints a table. Method and results:
benchmarks/README.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

# As the server runs: several processes share the cores, and threads must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

LOOKAHEADS = (0, 1, 3, 6, 13)
_PATH = click.Path(path_type=Path)

checkpoint_option = click.option(
    "--checkpoint",
    type=_PATH,
    help="A checkpoint directory.  [default: random weights of the published sizes, made once]",
)
device_option = click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
json_option = click.option("--json", "json_path", type=_PATH, help="Write the report here.")


def dtype_option(default: str):
    return click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16", "int8"]),
        default=default,
        show_default=True,
    )


def _checkpoint(path: Path | None) -> Path:
    if path is not None:
        return path
    from .random_checkpoint import published_random

    return published_random()


def _finish(benchmark, report: dict, json_path: Path | None) -> None:
    from .report import save_report

    benchmark.table(report).print()
    save_report(report, json_path)


class _Bench(click.Group):
    """Failures that a user can do something about are one line."""

    def invoke(self, ctx: click.Context):
        from asr_client.errors import ClientError
        from asr_server.errors import ServerError
        from nemotron_asr.errors import AsrError, CheckpointError

        try:
            return super().invoke(ctx)
        except (AsrError, CheckpointError, ClientError, ServerError, FileNotFoundError) as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            hint = 'pip install -e ".[bench]"'
            raise click.ClickException(f"{error.name} is not installed: {hint}") from error


@click.group(cls=_Bench)
def bench() -> None:
    """Benchmarks: one chunk, capacity, packets, files, word errors."""


@bench.command()
@checkpoint_option
@dtype_option("bfloat16")
@device_option
@click.option("--lookahead", "lookaheads", type=click.Choice(list(map(str, LOOKAHEADS))),
              multiple=True, help="Frames; may be repeated.  [default: all]")  # fmt: skip
@click.option("--batch", "batches", type=int, multiple=True, help="[default: 1, 2, 4 and 8]")
@click.option("--transformers/--no-transformers", default=True, show_default=True)
@click.option("--part", "parts", multiple=True,
              type=click.Choice(["front_end", "encoder", "decoder", "round"]),
              help="What to measure.  [default: all]")  # fmt: skip
@click.option("--repeats", type=click.IntRange(1), default=8, show_default=True)
@json_option
def chunk(checkpoint, dtype, device, lookaheads, batches, transformers, parts, repeats, json_path):
    """One chunk: front end, encoder, decoder, round; beside transformers and the floor."""
    from nemotron_asr.settings import let_threads_spin

    let_threads_spin()  # as those of live streams do
    from . import chunk as benchmark

    settings = benchmark.ChunkSettings(
        checkpoint=_checkpoint(checkpoint),
        dtype=dtype,
        device=device,
        lookaheads=tuple(map(int, lookaheads)) or LOOKAHEADS,
        batches=tuple(batches) or benchmark.ChunkSettings.batches,
        transformers=transformers,
        parts=tuple(parts) or benchmark.PARTS,
        repeats=repeats,
    )
    report = benchmark.run(settings)
    _finish(benchmark, report, json_path)


url_option = click.option(
    "--url", help="A running server's gRPC address, instead of starting one for the benchmark."
)


@bench.command()
@click.option("--checkpoint", type=_PATH, help="[default: the bundled one]")
@dtype_option("float32")
@device_option
@url_option
@click.option("--streams", type=click.IntRange(1), default=16, show_default=True)
@click.option("--packet-ms", type=click.IntRange(10, 200), default=20, show_default=True)
@click.option("--duration-s", type=click.FloatRange(1), default=20.0, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=8, show_default=True,
              help="Of one second each, of packets with audio.")  # fmt: skip
@json_option
def packets(checkpoint, url, json_path, **options):
    """CPU time that a packet costs the server and its Python process outside the model."""
    from asr_server import default_checkpoint

    from . import packets as benchmark

    report = benchmark.run(checkpoint or default_checkpoint(), url, **options)
    _finish(benchmark, report, json_path)


@bench.command()
@click.option("--streams", type=int, multiple=True, default=(50, 100, 200), show_default=True)
@click.option("--packet-ms", type=int, default=100, show_default=True)
@click.option("--latency-ms", type=int, default=320, show_default=True)
@click.option("--duration-s", type=float, default=20.0, show_default=True)
@click.option("--turns", type=int, default=3, show_default=True)
@json_option
def gateway(streams: tuple[int, ...], json_path: Path | None, **options) -> None:
    """What the gateway adds to the lag of live streams, and what it takes."""
    from . import gateway as benchmark

    _finish(benchmark, benchmark.run(streams, **options), json_path)


@bench.command()
@checkpoint_option
@url_option
@dtype_option("bfloat16")
@device_option
@click.option("--latency-ms", type=int, default=320, show_default=True)
@click.option("--packet-ms", type=int, help="At most latency-ms.  [default: one packet a chunk]")
@click.option("--streams", type=click.IntRange(1), help="One run with so many; no search.")
@click.option("--first", type=click.IntRange(1), default=1, show_default=True,
              help="Where the search begins.")  # fmt: skip
@click.option("--most", type=click.IntRange(1), default=64, show_default=True,
              help="Where it ends; also the server's slots.")  # fmt: skip
@click.option("--instances", type=click.IntRange(1), default=1, show_default=True,
              help="The server's processes for live streams.")  # fmt: skip
@click.option("--duration-s", type=click.FloatRange(1), default=120.0, show_default=True)
@click.option("--probe-s", type=click.FloatRange(1), default=20.0, show_default=True)
@click.option("--generators", type=click.IntRange(1), default=1, show_default=True,
              help="Processes that generate the load.")  # fmt: skip
@click.option("--retries", type=click.IntRange(0), default=2, show_default=True,
              help="Of a run that fails while others take the CPU.")  # fmt: skip
@json_option
def capacity(checkpoint, json_path, **options):
    """Live streams that the whole server holds: lags, and a search for C120."""
    from . import capacity as benchmark

    packet_ms = options["packet_ms"]
    if packet_ms is not None and not 10 <= packet_ms <= options["latency_ms"]:
        raise click.BadParameter(f"{packet_ms}; valid: 10 to latency-ms", param_hint="--packet-ms")
    path = checkpoint if options["url"] else _checkpoint(checkpoint)
    report = benchmark.run(benchmark.CapacitySettings(checkpoint=path, **options))
    _finish(benchmark, report, json_path)


@bench.command()
@checkpoint_option
@dtype_option("bfloat16")
@device_option
@click.option("--latency-ms", type=int, default=1120, show_default=True)
@click.option("--case", "cases", multiple=True,
              type=click.Choice(["10 s", "32 x 10 s", "10 min", "60 min"]),
              help="May be repeated.  [default: all]")  # fmt: skip
@click.option("--door", "doors", multiple=True, type=click.Choice(["library", "http"]),
              help="[default: both]")  # fmt: skip
@click.option("--transformers/--no-transformers", default=True, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@json_option
def offline(checkpoint, cases, doors, json_path, **options):
    """Whole files: real-time factor and peak memory; and generate() of transformers."""
    from . import offline as benchmark

    settings = benchmark.OfflineSettings(
        checkpoint=_checkpoint(checkpoint),
        cases=tuple(case for case in benchmark.CASES if not cases or case in cases),
        doors=doors or benchmark.OfflineSettings.doors,
        **options,
    )
    report = benchmark.run(settings)
    _finish(benchmark, report, json_path)


@bench.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=_PATH)
@click.option("--checkpoint", type=_PATH, help="[default: the bundled one]")
@dtype_option("float32")
@device_option
@click.option("--latency-ms", "latencies_ms", type=int, multiple=True, help="[default: all]")
@click.option("--prompt", "prompts", type=click.Choice(["given", "auto"]), multiple=True,
              help="Language given, or auto.  [default: both]")  # fmt: skip
@click.option("--live", is_flag=True, help="Also stream through the real server, and compare.")
@url_option
@click.option("--limit", type=click.IntRange(1), help="At most so many of a set, spread over it.")
@json_option
def wer(manifests, checkpoint, latencies_ms, prompts, json_path, **options):
    """Word error rates and language accuracy of sets of recordings.

    MANIFEST is JSON lines with text, language, and audio (a file) or start and num_samples (in the
    PCM16 file of the same name); or a folder of recordings with their texts beside them.
    """
    from asr_server import default_checkpoint

    from . import wer as benchmark

    settings = benchmark.WerSettings(
        manifests=manifests,
        checkpoint=checkpoint or default_checkpoint(),
        latencies_ms=latencies_ms,
        prompts=prompts or benchmark.WerSettings.prompts,
        **options,
    )
    report = benchmark.run(settings)
    _finish(benchmark, report, json_path)


@bench.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=_PATH)
@click.option("--checkpoint", type=_PATH, help="[default: the bundled one]")
@click.option("--latency-ms", type=int, default=560, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most so many of a set, spread over it.")
@click.option("--write", type=_PATH, help="Write confidence.json into this checkpoint's folder.")
@json_option
def confidence(manifests, checkpoint, json_path, **options):
    """Whether the confidence of a word is the chance that it is right, and what makes it so."""
    from asr_server import default_checkpoint

    from . import confidence as benchmark

    report = benchmark.run(manifests, checkpoint or default_checkpoint(), **options)
    _finish(benchmark, report, json_path)


@bench.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=_PATH)
@click.option("--checkpoint", type=_PATH, help="[default: the bundled one]")
@click.option("--phrases", type=_PATH, help="One a line.  [default: the names in the texts]")
@click.option("--boost", "boosts", type=float, multiple=True, help="May be given several times.")
@click.option("--latency-ms", type=int, default=560, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="At most so many of a set, spread over it.")
@device_option
@json_option
def phrases(manifests, checkpoint, json_path, **options):
    """What phrases that are expected gain, and cost where they are not said, by their boost."""
    from asr_server import default_checkpoint

    from . import phrases as benchmark

    report = benchmark.run(manifests, checkpoint or default_checkpoint(), **options)
    _finish(benchmark, report, json_path)


@bench.command()
@checkpoint_option
@dtype_option("bfloat16")
@device_option
@click.option("--latency-ms", type=int, default=320, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--trace", type=_PATH, help="Write a trace for chrome://tracing or Perfetto here.")
@json_option
def profile(checkpoint, json_path, **options):
    """Where the time of the engine's rounds goes, by operator (torch.profiler)."""
    from nemotron_asr.settings import let_threads_spin

    let_threads_spin()
    from . import profile as benchmark

    report = benchmark.run(_checkpoint(checkpoint), **options)
    _finish(benchmark, report, json_path)


@bench.command()
@click.argument("reports", metavar="JSON...", nargs=-1, required=True, type=_PATH)
@click.option("--markdown", is_flag=True, help="Tables as the README has them.")
@click.option("--plots", type=_PATH, help="Also draw plots, into this folder.")
def show(reports, markdown, plots):
    """Tables and plots of reports that were written before."""
    import importlib

    from .report import read_report

    for path in reports:
        report = read_report(path)
        benchmark = importlib.import_module(f".{report['benchmark']}", __package__)
        table = benchmark.table(report)
        click.echo(table.markdown()) if markdown else table.print()
        if plots is not None:
            from .plots import plot

            plot(report, plots / f"{path.stem}.png")


if __name__ == "__main__":
    bench()
