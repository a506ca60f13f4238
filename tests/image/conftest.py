"""The image, built and run for real without a container engine: minutes, so only when asked for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from image.build import Builder

TOOLS = ("buildah", "debootstrap", "unshare", "nsenter", "ip")


def pytest_collection_modifyitems(config, items):
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    reason = None
    if "image" not in config.option.markexpr:
        reason = "builds the image, which takes minutes: make test-image"
    elif os.geteuid() != 0:
        reason = "needs root, for namespaces and mounts"
    elif missing:
        reason = f"needs {', '.join(missing)}: apt-get install buildah debootstrap iproute2"
    for item in items:
        if reason and item.get_closest_marker("image"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def builder():
    """Its storage is in build/, gone after the tests."""
    with Builder(Path(__file__).parents[2]) as builder:
        yield builder


@pytest.fixture(scope="session")
def cpu_image(builder) -> str:
    return builder.build("cpu")


@pytest.fixture(scope="session")
def root(builder, cpu_image) -> Path:
    """The image's files."""
    return builder.mount(cpu_image)
