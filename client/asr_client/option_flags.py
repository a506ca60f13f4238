"""The options of streams and files as flags of the command line, out of the server's own table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import click

from nemotron_asr.config import LOOKAHEAD_BY_LATENCY_MS
from nemotron_asr.errors import AsrError
from nemotron_asr.options import AUTO, Option, Options, Written, option_table

_FLAGS = {"sample_rate": "rate"}  # where the flag is not called like the option
_DEFAULTS = {field.name: field.default for field in fields(Options)}


class _OneOf(click.ParamType):
    """A value that the table allows."""

    def __init__(self, option: Option):
        self.name = option.name
        self._option = option

    def get_metavar(self, param, ctx=None) -> str:
        return f"[{self._option.shown('|')}]"

    def convert(self, value, param, ctx):
        try:
            return self._option.read(value)
        except AsrError as error:
            self.fail(str(error), param, ctx)


def option_flags(of: str, default_latency_ms: int) -> Callable:
    """A decorator: a flag for every option of a "live" stream or a "file", passed on by its name.

    Which languages there are only the server knows.
    """
    table = option_table((AUTO,), LOOKAHEAD_BY_LATENCY_MS)
    defaults = {**_DEFAULTS, "latency_ms": default_latency_ms}

    def decorate(command):
        for option in reversed(table.values()):
            if of in option.of:
                command = _flag(option, defaults[option.name])(command)
        return command

    return decorate


def _flag(option: Option, default: object) -> Callable:
    name = _FLAGS.get(option.name, option.name).replace("_", "-")
    shown = {"default": default, "show_default": True, "help": option.help}
    if option.valid == (True, False):
        return click.option(f"--{name}/--no-{name}", option.name, **shown)
    if option.name == "language" or isinstance(option.valid, Written):  # the server reads those
        kind = type(default)
    else:
        kind = _OneOf(option)
    return click.option(f"--{name}", option.name, type=kind, **shown)
