"""The command line `asr`: stream, transcribe, serve. Each command is imported when it is used."""

from __future__ import annotations

import importlib

import click

_SERVE_HINT = 'the server is not installed here: pip install -e ".[serve]"'

_GATEWAY_HINT = 'the gateway is not installed here: pip install -e ".[gateway]"'

_BATCH_HINT = 'batches are not installed here: pip install -e ".[batch]"'

_BENCH_HINT = 'the benchmarks are not installed here: pip install -e ".[bench]"'

# name: (module, what its absence means, first line of the help where it is absent)
_COMMANDS = {
    "batch": (
        "asr_batch.command",
        _BATCH_HINT,
        "Transcribe manifests (not installed here).",
    ),
    "bench": ("asr_bench.cli", _BENCH_HINT, "Run benchmarks (not installed here)."),
    "gateway": ("asr_gateway.cli", _GATEWAY_HINT, "Run the gateway (not installed here)."),
    "gateway-key": ("asr_gateway.cli", _GATEWAY_HINT, "Make an API key (not installed here)."),
    "serve": ("asr_server.cli", _SERVE_HINT, "Run the server (not installed here)."),
    "stream": ("asr_client.stream_command", "", ""),
    "transcribe": ("asr_client.transcribe_command", "", ""),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, hint, summary = _COMMANDS[name]
        try:
            return getattr(importlib.import_module(module), name.replace("-", "_"))
        except ModuleNotFoundError:
            if not hint:
                raise
            return _missing_command(name, hint, summary)


def _missing_command(name: str, hint: str, summary: str) -> click.Command:
    """A command whose package is not installed: it says so, whatever its arguments are."""

    @click.command(name, help=summary, context_settings={"ignore_unknown_options": True})
    @click.argument("args", nargs=-1, type=click.UNPROCESSED)
    def missing(args: tuple[str, ...]) -> None:
        raise click.ClickException(hint)

    return missing


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nemotron-asr-triton")
def main() -> None:
    """Speech to text with a Triton server: live (stream) and from files (transcribe)."""


if __name__ == "__main__":
    main()
