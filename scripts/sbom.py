#!/usr/bin/env python3
"""Print a software bill of materials of this system, CycloneDX 1.6 as JSON.

    python3 scripts/sbom.py NAME

NAME is the Python package that all is for. Lists Debian's packages and the Python packages of the
interpreter that runs it. Standard library only: it runs inside the image, which has no tools. The
same system gives the same bytes.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distributions, version
from urllib.parse import quote

IN_WHEEL = {"0.5.12": "2.50.0"}  # nvidia-pytriton's versions, and the servers that they carry


def debian_components() -> list[dict]:
    system = platform.freedesktop_os_release()
    fields = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
    listed = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={fields}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    distro = f"{system['ID']}-{system['VERSION_ID']}"
    return [
        _component(name, number, f"deb/{system['ID']}", f"?arch={arch}&distro={distro}")
        for name, number, arch, status in rows
        if status == "installed"
    ]


def python_components() -> list[dict]:
    return [
        _component(package.name, package.version, "pypi") | _licenses(package)
        for package in distributions()
    ]


def triton_components() -> list[dict]:
    """NVIDIA's image says so of its server, which is in no package; a wheel carries it unsaid."""
    number = os.environ.get("TRITON_SERVER_VERSION")
    if number is None and (wheel := _installed("nvidia-pytriton")):
        number = IN_WHEEL[wheel]
    return [_component("server", number, "github/triton-inference-server")] if number else []


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _component(name: str, number: str, kind: str, qualifiers: str = "") -> dict:
    written = name.lower().replace("_", "-") if kind == "pypi" else name
    purl = f"pkg:{kind}/{quote(written, safe='')}@{quote(number, safe='')}{qualifiers}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl}


def _licenses(package: Distribution) -> dict:
    """What its metadata says: an expression, else classifiers, else the first line of the text."""
    if expression := package.metadata.get("License-Expression"):
        return {"licenses": [{"expression": expression}]}
    classifiers = package.metadata.get_all("Classifier") or []
    names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    if not names and (text := (package.metadata.get("License") or "").strip()):
        names = [text.splitlines()[0][:100]]
    return {"licenses": [{"license": {"name": name}} for name in names]} if names else {}


def bill(name: str) -> dict:
    whole = {"type": "container", "name": name, "version": version(name)}
    parts = [*debian_components(), *python_components(), *triton_components()]
    components = {c["bom-ref"]: c for c in parts}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": whole},
        "components": [components[ref] for ref in sorted(components)],
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    json.dump(bill(sys.argv[1]), sys.stdout, indent=1)
    print()
