"""`asr serve`: the server in the foreground."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from nemotron_asr.settings import (
    DEVICES,
    DTYPES,
    MAX_IDLE_TIMEOUT_S,
    MAX_SLOTS,
    MIN_IDLE_TIMEOUT_S,
)

from .errors import ServerError, SettingsError
from .settings import (
    DEFAULT_HOST,
    MAX_INSTANCES,
    MAX_PORT,
    ServerSettings,
    check_free,
    default_checkpoint,
    default_model_repository,
)

_PORT = click.IntRange(0, MAX_PORT)
_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(context_settings={"show_default": True})
@click.option(
    "--checkpoint",
    type=_PATH,
    envvar="ASR_CHECKPOINT",
    help="A directory or a .nemo file.  [default: the bundled one]",
)
@click.option("--device", type=click.Choice(DEVICES), envvar="ASR_DEVICE", default="auto")
@click.option("--dtype", type=click.Choice(DTYPES), envvar="ASR_DTYPE", default="float32")
@click.option(
    "--instances",
    type=click.IntRange(1, MAX_INSTANCES),
    envvar="ASR_INSTANCES",
    default=1,
    help="Processes that serve live streams, each with the weights; on every GPU.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, MAX_SLOTS),
    envvar="ASR_SLOTS",
    default=64,
    help="Live streams at a time, of each instance.",
)
@click.option(
    "--idle-timeout-s",
    type=click.FloatRange(MIN_IDLE_TIMEOUT_S, MAX_IDLE_TIMEOUT_S),
    envvar="ASR_IDLE_TIMEOUT_S",
    default=30.0,
    help="A stream that sends nothing for so long is ended.",
)
@click.option("--host", envvar="ASR_HOST", default=DEFAULT_HOST, help="Address to listen at.")
@click.option(
    "--metrics-host", envvar="ASR_METRICS_HOST", help="Of the metrics alone.  [default: --host]"
)
@click.option(
    "--http-port", type=_PORT, envvar="ASR_HTTP_PORT", default=8000, help="0: a free one."
)
@click.option(
    "--grpc-port", type=_PORT, envvar="ASR_GRPC_PORT", default=8001, help="0: a free one."
)
@click.option(
    "--metrics-port", type=_PORT, envvar="ASR_METRICS_PORT", default=8002, help="0: a free one."
)
@click.option(
    "--model-repository",
    type=_PATH,
    envvar="ASR_MODEL_REPOSITORY",
    help="[default: the checkout's]",
)
@click.option(
    "--start-timeout-s",
    type=click.FloatRange(min=1),
    envvar="ASR_START_TIMEOUT_S",
    default=300.0,
    help="How long the models may take to load.",
)
@click.option(
    "--drain-timeout-s",
    type=click.FloatRange(min=0),
    envvar="ASR_DRAIN_TIMEOUT_S",
    default=30.0,
    help="How long live streams may go on when the server is told to stop.",
)
@click.option(
    "--trace-url",
    envvar="ASR_TRACE_URL",
    help="OTLP collector for OpenTelemetry traces, http://host:4318/v1/traces.",
)
@click.option(
    "--gateway",
    is_flag=True,
    envvar="ASR_GATEWAY",
    help="Run `asr gateway` beside it, as its environment variables say.",
)
@click.option(
    "--gateway-host", envvar="ASR_GATEWAY_HOST", default=DEFAULT_HOST, help="Of the gateway."
)
@click.option(
    "--gateway-port", type=_PORT, envvar="ASR_GATEWAY_PORT", default=8080, help="Of the gateway."
)
@click.option(
    "--riva-port", type=_PORT, envvar="ASR_GATEWAY_RIVA_PORT", default=50051, help="Likewise."
)
@click.option(
    "--gateway-tls-cert", type=_FILE, envvar="ASR_GATEWAY_TLS_CERT", help="A PEM file, likewise."
)
@click.option(
    "--gateway-tls-key", type=_FILE, envvar="ASR_GATEWAY_TLS_KEY", help="A PEM file, likewise."
)
@click.option(
    "--gateway-keys", type=_FILE, envvar="ASR_GATEWAY_KEYS", help="API keys, see `asr gateway-key`."
)
@click.option("--verbose", is_flag=True, help="The server's own log, on stderr.")
@click.help_option("-h", "--help")
def serve(
    checkpoint: Path | None,
    model_repository: Path | None,
    gateway: bool,
    gateway_host: str,
    gateway_port: int,
    riva_port: int,
    gateway_tls_cert: Path | None,
    gateway_tls_key: Path | None,
    gateway_keys: Path | None,
    **options: object,
) -> None:
    """Serve live and offline transcription until Ctrl-C.

    Then live streams may end, and new ones are refused; a second Ctrl-C ends them at once.
    Every option can be given as an environment variable too: ASR_CHECKPOINT, ASR_DEVICE, ...
    Ends with 0 when told to stop, 1 if the server cannot be started, 2 for a bad option.
    """
    from .supervisor import serve as run  # imports the HTTP client: not for --help

    if bool(gateway_tls_cert) != bool(gateway_tls_key):
        raise click.UsageError("--gateway-tls-cert and --gateway-tls-key belong together")
    try:
        settings = ServerSettings(
            checkpoint=checkpoint or default_checkpoint(),
            model_repository=model_repository or default_model_repository(),
            **options,
        )
        if not settings.is_loopback():
            click.echo(_OPEN_WARNING.format(host=settings.host), err=True)
        ports = {"gateway": gateway_port, "Riva": riva_port}
        if gateway:
            _check_gateway({name: (gateway_host, port) for name, port in ports.items()})
        doors = ["--host", gateway_host, "--port", str(gateway_port), "--riva-port", str(riva_port)]
        doors += ["--keys", str(gateway_keys)] if gateway_keys else []
        for option, file in (("--tls-cert", gateway_tls_cert), ("--tls-key", gateway_tls_key)):
            doors += [option, str(file)] if file else []
        if "ASR_GATEWAY_DRAIN_TIMEOUT_S" not in os.environ:  # its sessions get no less than streams
            doors += ["--drain-timeout-s", str(settings.drain_timeout_s)]
        sys.exit(run(settings, doors if gateway else None))
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except ServerError as error:
        raise click.ClickException(str(error)) from None


def _check_gateway(addresses: dict[str, tuple[str, int]]) -> None:
    """What would end the gateway, told before the models are loaded.  Raises ServerError."""
    if find_spec("uvicorn") is None:
        raise ServerError('the gateway is not installed here: pip install -e ".[gateway]"')
    check_free(addresses)


_OPEN_WARNING = (
    "warning: {host} can be reached from other machines. There is no password, and this server "
    "(Triton 2.50) lacks the security fixes of 2025: put a proxy in front of it."
)

if __name__ == "__main__":
    serve()
