"""`asr gateway`: the front doors in the foreground; `asr gateway-key`: who may come in."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import click

from .settings import MIB, GatewaySettings

_PORT = click.IntRange(0, 65535)
_DEFAULT = GatewaySettings()


def _limit(name: str, kind, **kwargs):
    """A flag of a setting, with its default and its environment variable."""
    return click.option(
        f"--{name.replace('_', '-')}",
        type=kind,
        default=getattr(_DEFAULT, name),
        envvar=f"ASR_GATEWAY_{name.upper()}",
        **kwargs,
    )


@click.command(context_settings={"show_default": True})
@click.option("--grpc-url", envvar="ASR_GRPC_URL", default=_DEFAULT.grpc_url, help="Triton's.")
@click.option("--http-url", envvar="ASR_HTTP_URL", default=_DEFAULT.http_url, help="Triton's.")
@_limit("host", str, help="Address to listen at.")
@_limit("port", _PORT, help="HTTP and WebSocket; 0: a free one.")
@_limit("riva_port", _PORT, help="Riva's gRPC; 0: a free one.")
@click.option("--no-riva", is_flag=True, envvar="ASR_GATEWAY_NO_RIVA", help="No Riva door.")
@_limit("processes", click.IntRange(1, 64), help="That share the ports.")
@click.option(
    "--keys",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    envvar="ASR_GATEWAY_KEYS",
    help="API keys, see `asr gateway-key`.  [default: everybody may come in]",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    envvar="ASR_GATEWAY_ORIGINS",
    help="https://host of web pages elsewhere that may use this, * for any. May be repeated; "
    "spaces between them in the variable.",
)
@_limit("max_sessions", click.IntRange(1), help="Live streams at a time, of each process.")
@_limit("max_files", click.IntRange(1), help="Files at a time, of each process.")
@click.option(
    "--max-file-mb", type=click.IntRange(1), default=_DEFAULT.max_file_bytes // MIB,
    envvar="ASR_GATEWAY_MAX_FILE_MB", help="Of an upload.",
)  # fmt: skip
@click.option(
    "--max-riva-mb", type=click.IntRange(1, 2000), default=_DEFAULT.max_riva_bytes // MIB,
    envvar="ASR_GATEWAY_MAX_RIVA_MB",
    help="Of a recording through Riva's door, which is one message.",
)  # fmt: skip
@_limit("idle_timeout_s", click.FloatRange(1), help="A session silent for longer is ended.")
@_limit("drain_timeout_s", click.FloatRange(0), help="What sessions get to end at a stop.")
@_limit("tls_cert", click.Path(path_type=Path, exists=True), help="A PEM file.")
@_limit("tls_key", click.Path(path_type=Path, exists=True), help="A PEM file.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info")
@click.help_option("-h", "--help")
def gateway(
    no_riva: bool,
    max_file_mb: int,
    max_riva_mb: int,
    log_level: str,
    **options: object,
) -> None:
    """Serve OpenAI's, Riva's and WebSocket clients, and a page, before a running server.

    Until Ctrl-C or SIGTERM: then open sessions may end; a second one ends them at once.
    """
    from asr_client.address import is_loopback

    from .run import check, run, with_free_ports

    if no_riva:
        options["riva_port"] = None
    if bool(options["tls_cert"]) != bool(options["tls_key"]):
        raise click.UsageError("--tls-cert and --tls-key belong together")
    try:
        options |= {"max_file_bytes": max_file_mb * MIB, "max_riva_bytes": max_riva_mb * MIB}
        settings = with_free_ports(GatewaySettings(**options))
        check(settings)
        if settings.keys is None and not is_loopback(settings.host):
            click.echo(_OPEN_WARNING.format(host=settings.host), err=True)
        scheme = "https" if settings.tls_cert else "http"
        riva = f"  riva {settings.host}:{settings.riva_port}" if settings.riva_port else ""
        click.echo(f"open {scheme}://{settings.host}:{settings.port}{riva}")
        if not _answers(settings.grpc_url):
            click.echo(f"no server answers at {settings.grpc_url} yet", err=True)
        sys.exit(run(settings, log_level))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _answers(url: str) -> bool:
    from asr_client.address import grpc_target

    host, _, port = grpc_target(url).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


_OPEN_WARNING = (
    "warning: {host} can be reached from other machines, and without --keys everybody may come in"
)


@click.command("gateway-key")
@click.argument("name")
@click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False), default="keys.json",
    show_default=True, help="The gateway's --keys; it is made if need be.",
)  # fmt: skip
@click.option(
    "--max-sessions",
    type=click.IntRange(1),
    help="Live streams of this key at a time, in each of the gateway's processes.",
)
@click.option("--requests-per-minute", type=click.FloatRange(0.1), help="New streams and files.")
@click.help_option("-h", "--help")
def gateway_key(
    name: str, path: Path, max_sessions: int | None, requests_per_minute: float | None
) -> None:
    """Make an API key and print it, once: the file holds its hash alone.

    A running gateway takes changes of the file within seconds. To withdraw a key delete its entry.
    """
    from .access import add_key

    try:
        click.echo(add_key(path, name, max_sessions, requests_per_minute))
        click.echo(f"its hash is in {path}, for: asr gateway --keys {path}", err=True)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
