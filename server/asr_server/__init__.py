"""Run the Triton server of the PyPI wheel, with this project's models, and keep it running."""

from .errors import ServerError, SettingsError, StartCancelled
from .settings import ServerSettings, default_checkpoint, default_model_repository

__all__ = [
    "ServerError",
    "ServerSettings",
    "SettingsError",
    "StartCancelled",
    "TritonServer",
    "default_checkpoint",
    "default_model_repository",
]


def __getattr__(name: str):
    if name == "TritonServer":  # its HTTP client takes 0.3 s to import: not for `--help`
        from .launcher import TritonServer

        return TritonServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
