"""Builds images with buildah on a Debian that debootstrap makes: no engine, no registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

MIRRORED = "/mnt/pip"  # where the build finds what pip's settings name in /etc
BUILD_TIMEOUT_S = 3000


class Builder:
    """Use as a context manager. ASR_IMAGE_BASE: an image to build on instead of a fresh Debian."""

    def __init__(self, project: Path):
        self._project = project
        self._folder = project / "build" / "image"
        self._env = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

    def __enter__(self) -> Builder:
        self._remove()
        self._folder.mkdir(parents=True)
        self._base = os.environ.get("ASR_IMAGE_BASE") or self._debian()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._remove()

    def build(self, name: str, *arguments: str) -> str:
        """The name of the image that the project's Dockerfile makes, with these arguments more."""
        image = f"localhost/{name}"
        options = self._pip_settings()
        # where there are no overlays every layer is a whole copy; docker's format keeps HEALTHCHECK
        usual = ["--layers=false", "--format=docker", f"--build-arg=BASE={self._base}"]
        self._buildah("build", *usual, *options, *arguments, f"--tag={image}", str(self._project))
        return image

    def mount(self, image: str) -> Path:
        """Where its files are."""
        made = self._buildah("from", "--pull-never", image)
        return Path(self._buildah("mount", made))

    def config(self, image: str) -> dict:
        """What its Dockerfile says of a run: Entrypoint, Env, User, Healthcheck, ..."""
        return json.loads(self._buildah("inspect", "--type=image", image))["Docker"]["config"]

    def _debian(self) -> str:
        tree = self._folder / "debian"
        command = ["debootstrap", "--variant=minbase", "bookworm", str(tree)]
        _run(command, self._env)
        empty = self._buildah("from", "scratch")
        self._buildah("copy", "--quiet", empty, str(tree), "/")
        self._buildah("commit", "--quiet", "--rm", empty, "localhost/debian")
        shutil.rmtree(tree)
        return "localhost/debian"

    def _pip_settings(self) -> list[str]:
        """What makes the build's pip find what this machine's pip finds, PyTorch included."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        settings = {}
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            settings[name.rpartition(".")[2]] = value.strip("'").replace("\\n", " ")
        etc = self._folder / "etc"
        etc.mkdir(exist_ok=True)
        volumes = {str(etc): MIRRORED}
        for name, value in settings.items():
            for word in value.split():
                path = Path(urlparse(word).path if word.startswith("file:") else word)
                if path.is_absolute() and path.is_file():  # certificates
                    shutil.copy(path, etc)
                    settings[name] = f"{MIRRORED}/{path.name}"
                elif path.is_absolute() and path.is_dir():  # an index, its files beside it; wheels
                    path = path.parent if word.startswith("file:") else path
                    volumes[str(path)] = str(path)
        lines = [f"{name} = {value}" for name, value in settings.items()]
        conf = self._folder / "pip.conf"
        conf.write_text("\n".join(["[global]", *lines, ""]))
        options = [f"--volume={here}:{there}:ro" for here, there in volumes.items()]
        options.append(f"--secret=id=pip.conf,src={conf}")
        if any(name.endswith(("index-url", "find-links")) for name in settings):
            options.append("--build-arg=TORCH_INDEX_URL=")
        return options

    def _buildah(self, *arguments: str) -> str:
        storage = [f"--root={self._folder / 'storage'}", f"--runroot={self._folder / 'run'}"]
        return _run(["buildah", *storage, *arguments], self._env)

    def _remove(self) -> None:
        """Also what a build that was interrupted left mounted."""
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed(mounted):
            if Path(place).is_relative_to(self._folder):
                subprocess.run(["umount", "--lazy", place], check=True)
        if self._folder.exists():
            shutil.rmtree(self._folder)


def _run(command: list[str], env: dict[str, str]) -> str:
    """What it prints. Where it fails, the end of all that it said is told."""
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=BUILD_TIMEOUT_S)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, "\n".join(said[-40:])
    return done.stdout.strip()
