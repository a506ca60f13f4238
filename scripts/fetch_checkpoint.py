#!/usr/bin/env python3
"""Download the published checkpoint, at a pinned revision, and check every file's sha256.

    python scripts/fetch_checkpoint.py [--to checkpoints/nemotron-3.5-asr-streaming-0.6b]

Needs `huggingface_hub` (pip install -e '.[fetch]', or `make setup`) and internet, about 2.6 GB.
Files that are there already are checked and not fetched again. Then:
`asr serve --checkpoint DIRECTORY`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path

REPOSITORY = "nvidia/nemotron-3.5-asr-streaming-0.6b"
REVISION = "ea30d66debe3740a08b573244286791d423d6b3e"
SHA256 = {
    "config.json": "62d186fd91f518e00e7867500f1f5819225e8ee95ea3e21b546514bf2048e845",
    "generation_config.json": "993e5d4cb74a6fe9d6e7084a76b3313c1446740679be4676570c23b664fdc07e",
    "processor_config.json": "ec47870f1091ea4f25539208387b45b902c92d0e3f997a30061ef88f73437ab0",
    "tokenizer_config.json": "5c641c5b3f50702a60082690d27c1ce7fcb5a92c4a624793bcae0f21eda3d6e0",
    "tokenizer.json": "3f3d481deb073b64c2082e8c7860d487a3a62774bf4e9e4faac83007e181f246",
    "model.safetensors": "9eebdd6590289cb3030f310858f3df93256600a800a3e8200c5993d5f967e174",
}
DEFAULT_TARGET = Path(__file__).parents[1] / "checkpoints" / REPOSITORY.split("/")[1]
WITHOUT_INTERNET = """\
Without internet on this machine: run this script on another one, or download these files of
{repository} at revision {revision}
by any means, put them into
  {target}
and run this script again: it checks them without a connection. A .nemo archive works as well:
`asr serve --checkpoint FILE.nemo`."""


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def missing_or_wrong(target: Path) -> dict[str, str]:
    """What is the matter with each file that is not as published."""
    problems = {}
    for name, expected in SHA256.items():
        path = target / name
        if not path.is_file():
            problems[name] = "missing"
        elif (found := sha256_of(path)) != expected:
            problems[name] = f"sha256 is {found}, expected {expected}"
    return problems


def fetch(name: str, target: Path) -> None:
    """Download one file beside its place, check it, then put it there."""
    from huggingface_hub import hf_hub_download

    partial = target / ".partial"
    path = Path(hf_hub_download(REPOSITORY, name, revision=REVISION, local_dir=partial))
    if (found := sha256_of(path)) != SHA256[name]:
        path.unlink()
        raise ValueError(f"sha256 is {found}, expected {SHA256[name]}: download again")
    shutil.move(path, target / name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=DEFAULT_TARGET, metavar="DIRECTORY")
    target = parser.parse_args(arguments).to
    wanted = missing_or_wrong(target)
    if wanted and importlib.util.find_spec("huggingface_hub") is None:
        print("huggingface_hub is not installed: pip install -e '.[fetch]'", file=sys.stderr)
        return 1
    target.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        print(f"fetching {name}", flush=True)
        try:
            fetch(name, target)
        except Exception as error:  # every kind of network and hub error ends the same way
            print(f"cannot fetch {name}: {type(error).__name__}: {error}\n", file=sys.stderr)
            hint = {"repository": REPOSITORY, "revision": REVISION, "target": target}
            print(WITHOUT_INTERNET.format(**hint), file=sys.stderr)
            return 1
    shutil.rmtree(target / ".partial", ignore_errors=True)
    print(f"{len(SHA256)} files, sha256 as published: {target}")
    print(f"serve them: asr serve --checkpoint {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
