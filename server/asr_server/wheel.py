"""The Triton server in the `nvidia-pytriton` wheel, or of NVIDIA's image: find it, lay it out."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ServerError

MIN_GLIBC = (2, 35)  # the wheel is manylinux_2_35
LOADER = "/lib64/ld-linux-x86-64.so.2"
INSTALL_HINT = "pip install '.[serve]'"
INSTALLED = Path("/opt/tritonserver")  # where NVIDIA's image has its server
# Newer servers take 64 MB unless told otherwise: an hour of 48 kHz stereo WAV is 691 MB. The
# wheel's takes any length, and does not know the option.
MAX_INPUT = f"--http-max-input-size={1 << 30}"


@dataclass(frozen=True)
class TritonWheel:
    """Where the parts are.  options: what this server must be told beside what all are told."""

    binary: Path
    libs: Path
    python_backend: Path  # directory of libtriton_python.so and triton_python_backend_utils.py
    stub: Path  # the executable that embeds this version of Python
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What `assemble` made: arguments and search paths for a start."""

    backend_directory: Path
    library_path: str


def check_platform() -> None:
    """Raises ServerError unless this is Linux on x86-64 with a glibc that the wheel runs on."""
    system, machine = platform.system(), platform.machine()
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise ServerError(
            f"the server runs on Linux x86-64 only, this is {system} {machine}: "
            "use the container image, or a server on another machine"
        )
    libc, version = platform.libc_ver()
    try:
        found = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        found = ()
    if libc != "glibc" or found < MIN_GLIBC:
        need = ".".join(map(str, MIN_GLIBC))
        raise ServerError(
            f"the server needs glibc {need} or later (Debian 12, Ubuntu 22.04), "
            f"this system has {libc or 'another C library'} {version}".rstrip()
        )


def find_wheel() -> TritonWheel:
    """The wheel's parts; those of NVIDIA's image where the wheel is not installed.

    Raises ServerError if there is neither, or no stub for this Python.
    """
    spec = importlib.util.find_spec("pytriton")  # finds without importing: that costs a second
    if spec is None or not spec.origin:
        return _find_installed()
    package = Path(spec.origin).parent
    root = package / "tritonserver"
    stubs = root / "python_backend_stubs"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wheel = TritonWheel(
        binary=root / "bin" / "tritonserver",
        libs=package.parent / "nvidia_pytriton.libs",
        python_backend=root / "backends" / "python",
        stub=stubs / version / "triton_python_backend_stub",
    )
    if stubs.is_dir() and not wheel.stub.is_file():
        valid = sorted((p.name for p in stubs.iterdir()), key=lambda v: int(v.split(".")[-1]))
        raise ServerError(
            f"the Triton server has no Python {version} inside; valid: {', '.join(valid)}"
        )
    _check_complete(wheel)
    return wheel


def _find_installed() -> TritonWheel:
    """Its stub is for its image's own Python: the environment must be of that one."""
    if not (INSTALLED / "bin" / "tritonserver").exists():
        raise ServerError(f"the Triton server is not installed: {INSTALL_HINT}")
    backend = INSTALLED / "backends" / "python"
    server = TritonWheel(
        binary=INSTALLED / "bin" / "tritonserver",
        libs=INSTALLED / "lib",
        python_backend=backend,
        stub=backend / "triton_python_backend_stub",
        options=(MAX_INPUT,),
    )
    _check_complete(server)
    return server


def _check_complete(server: TritonWheel) -> None:
    for part in (server.binary, server.libs, server.python_backend, server.stub):
        if not part.exists():
            raise ServerError(f"the Triton server is incomplete, no {part}: {INSTALL_HINT}")


def assemble(wheel: TritonWheel, directory: Path) -> Layout:
    """Make the backend directory and a library directory inside `directory`, of links.

    Raises ServerError naming a shared library that the server or the stub would miss.
    """
    backend = directory / "backends" / "python"
    backend.mkdir(parents=True)
    for file in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / file).symlink_to(wheel.python_backend / file)
    # Where Python would keep bytecode: on a full disk one process writes half of it (CPython issue
    # 126606), and the next, which begins at the same moment, fails on that.
    (backend / "__pycache__").touch()
    stub = backend / "triton_python_backend_stub"
    stub.symlink_to(wheel.stub)
    libs = directory / "lib"
    libs.mkdir()
    if libpython := _find_libpython():
        (libs / libpython.name).symlink_to(libpython)
    library_path = f"{wheel.libs}:{libs}"
    for program in (wheel.binary, stub):
        _check_libraries(program, library_path)
    return Layout(backend_directory=backend.parent, library_path=library_path)


def stub_environment(layout: Layout, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment with this interpreter's first on PATH: the stub asks `python3`."""
    env = dict(environ)
    env["PATH"] = f"{sys.prefix}/bin:{env.get('PATH', os.defpath)}"
    if sys.prefix != sys.base_prefix:
        env["VIRTUAL_ENV"] = sys.prefix
    env.pop("PYTHONHOME", None)
    env["PYTHONUNBUFFERED"] = "1"  # what a model prints before it crashes reaches the log
    inherited = env.get("LD_LIBRARY_PATH")
    env["LD_LIBRARY_PATH"] = layout.library_path + (f":{inherited}" if inherited else "")
    return env


def _find_libpython() -> Path | None:
    """The stub links libpython; an interpreter outside /usr (pyenv, uv, conda) brings its own."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    for directory in (f"{sys.base_prefix}/lib", sysconfig.get_config_var("LIBDIR")):
        if directory and (path := Path(directory) / name).is_file():
            return path
    return None  # the system's, if there is one: the loader finds it


def _check_libraries(program: Path, library_path: str) -> None:
    inherited = os.environ.get("LD_LIBRARY_PATH")
    search = library_path + (f":{inherited}" if inherited else "")
    try:
        listed = subprocess.run(
            [LOADER, "--library-path", search, "--list", str(program)],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except OSError:
        return  # no such loader here: the start itself will tell
    missing = [line.split()[0] for line in listed.stdout.splitlines() if "not found" in line]
    if not missing and listed.returncode == 0:
        return
    what = f"no {', '.join(missing)}" if missing else listed.stderr.strip().rpartition(": ")[0]
    hint = ""
    if "libpython" in (what or listed.stderr):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        hint = f" (apt-get install libpython{version}, or a Python built with --enable-shared)"
    raise ServerError(f"{program.name} cannot start, {what or listed.stderr.strip()}{hint}")
