"""The model repository that Triton gets: the given one, or one of links with more instances."""

from __future__ import annotations

from pathlib import Path

from .errors import SettingsError
from .probe import PROBE_MODEL


def with_instances(repository: Path, count: int, directory: Path) -> Path:
    """A repository made in `directory`, whose asr_streaming runs in `count` processes a device.

    All else are links into `repository`. Raises SettingsError if that has no such model.
    """
    from google.protobuf import text_format  # not for `--help`
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    source = repository.resolve()
    if not (source / PROBE_MODEL / "config.pbtxt").is_file():
        raise SettingsError(f"instances {count}: no model {PROBE_MODEL} in {repository}; valid: 1")
    made, model = directory / "model_repository", directory / "model_repository" / PROBE_MODEL
    model.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name != PROBE_MODEL:
            (made / entry.name).symlink_to(entry)
    for entry in (source / PROBE_MODEL).iterdir():
        if entry.name != "config.pbtxt":
            (model / entry.name).symlink_to(entry)
    config = text_format.Parse((source / PROBE_MODEL / "config.pbtxt").read_text(), ModelConfig())
    if not config.instance_group:
        config.instance_group.add()
    for group in config.instance_group:
        group.count = count
    (model / "config.pbtxt").write_text(text_format.MessageToString(config))
    return made
