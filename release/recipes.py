"""Builds wheels of libraries that have none for a target, from their own sources, and keeps their licences."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from release.archive import write_wheel
from release.compiling import compile_module, judge
from release.debian import unpacked
from release.running import run
from release.sources import LGPIO, LIBZMQ, MSGSPEC, PYZMQ
from release.targets import BuildError, Target

LINUX = (
    *("ZMQ_HAVE_CURVE", "ZMQ_USE_LIBSODIUM", "ZMQ_STATIC", "HAVE_SYS_UN_H", "HAVE_ACCEPT4", "ZMQ_HAVE_EVENTFD"),
    *("ZMQ_HAVE_EVENTFD_CLOEXEC", "ZMQ_HAVE_O_CLOEXEC", "ZMQ_HAVE_SOCK_CLOEXEC"),
    *("ZMQ_IOTHREAD_POLLER_USE_EPOLL_CLOEXEC", "ZMQ_HAVE_GETRANDOM", "ZMQ_HAVE_PTHREAD_SETNAME_2"),
)
"""What libzmq's own configure finds in glibc 2.34, beside what its header for Linux names."""


def msgspec_wheel(target: Target, dist: Path, work: Path, date: int) -> Path:
    """Build msgspec: one C file, and Python. Raises BuildError."""
    source = MSGSPEC.unpacked()
    package = source / "src" / "msgspec"
    files = {f"msgspec/{path.name}": path.read_bytes() for path in package.iterdir() if path.suffix in (".py", ".pyi")}
    files["msgspec/py.typed"] = b""
    built = work / f"_core{target.suffix}"
    files[f"msgspec/{built.name}"] = compile_module(target, [package / "_core.c"], built)
    return _finish(target, dist, source, files, date)


def lgpio_wheel(target: Target, dist: Path, work: Path, date: int) -> Path:
    """Build lgpio, with the library lg in it, as its wheels on PyPI have it. Raises BuildError: swig is missing."""
    source = LGPIO.unpacked()
    swig = shutil.which("swig")
    if swig is None:
        raise BuildError("swig is missing, which lgpio is built with: apt install swig")
    wrapper = work / "lgpio_wrap.c"
    folders = [f"-I{source}", f"-I{source / 'src'}"]
    run([swig, "-python", *folders, "-outdir", str(work), "-o", str(wrapper), "lgpio.i"], source)
    parts = sorted(path for path in (source / "src").glob("*.c") if path.name.startswith("lg") or path.stem == "rgpiod")
    built = work / f"_lgpio{target.suffix}"
    module = compile_module(
        target, [wrapper, *parts], built, [f"-I{source / 'src'}", "-O3", "-pthread", "-Wno-format-security"]
    )
    files = {"lgpio.py": (work / "lgpio.py").read_bytes(), built.name: module}
    return _finish(target, dist, source, files, date)


def pyzmq_wheel(target: Target, dist: Path, work: Path, date: int) -> Path:
    """Build pyzmq with libzmq and libsodium in it, as its wheels on PyPI have them. Raises BuildError: g++ is missing.

    libzmq is the newest one that PyPI has the source of, and libsodium Debian's static library.
    """
    target.processor.tool("g++")  # gcc compiles libzmq with it
    source, older = PYZMQ.unpacked(), LIBZMQ.unpacked()
    wrapper = work / "_zmq.c"
    cython = [sys.executable, "-m", "cython", "-3", "--module-name", "zmq.backend.cython._zmq"]
    run([*cython, "--output-file", str(wrapper), "zmq/backend/cython/_zmq.py"], source)
    libzmq = older / "bundled" / "zeromq"
    sodium = unpacked("libsodium-dev", target.version.suite, target.processor) / "usr"
    folders = (source / "zmq/utils", older / "buildutils/include_linux", libzmq / "include", sodium / "include")
    options = [f"-I{folder}" for folder in folders] + [f"-D{word}=1" for word in LINUX]
    built = work / f"_zmq{target.suffix}"
    module = compile_module(
        target,
        [wrapper, *sorted((libzmq / "src").glob("[!w]*.cpp"))],  # not ws_*: WebSockets
        built,
        [*options, f"-ffile-prefix-map={libzmq}=libzmq", "-static-libgcc", "-pthread"],
        [str(next(sodium.rglob("libsodium.a"))), "-Wl,-Bstatic", "-lstdc++", "-Wl,-Bdynamic"],
    )
    package = source / "zmq"
    kept = [path for path in package.rglob("*") if path.suffix in (".py", ".pyi") or path.name == "py.typed"]
    files = {str(path.relative_to(source)): path.read_bytes() for path in kept if package / "tests" not in path.parents}
    # what the module was compiled from
    del files["zmq/backend/cython/_zmq.py"]
    files[f"zmq/backend/cython/{built.name}"] = module
    licences = {f"LICENSE.zeromq-{path.name}": path for path in libzmq.glob("COPYING*")}
    licences["LICENSE.libsodium"] = sodium / "share/doc/libsodium-dev/copyright"
    # Debian 12's C++ library draws random numbers by arc4random
    return _finish(replace(target, glibc=(2, 36)), dist, source, files, date, licences)


RECIPES: Mapping[str, Callable[[Target, Path, Path, int], Path]] = {
    "lgpio": lgpio_wheel,
    "msgspec": msgspec_wheel,
}
"""What can be built here, by its name on PyPI. pyzmq is not among them: an engine on it did not answer on armhf."""


def _finish(
    target: Target,
    dist: Path,
    source: Path,
    files: dict[str, bytes],
    date: int,
    others: Mapping[str, Path] = MappingProxyType({}),
) -> Path:
    """Write the wheel with a source's metadata, its licences and others by name, and have auditwheel judge it."""
    metadata = (source / "PKG-INFO").read_bytes()
    name, version = (_field(metadata, field) for field in ("Name", "Version"))
    licences = {path.name: path for path in source.iterdir() if path.name.startswith("LICENSE") and path.is_file()}
    if not licences:
        raise BuildError(f"{name} has no licence to keep in {source}")
    kept = {f"licenses/{name}": path.read_bytes() for name, path in {**licences, **others}.items()}
    info = {"METADATA": metadata} | kept
    wheel = write_wheel(dist, name, version, target.tag, files, info, date)
    judge(wheel)
    return wheel


def _field(metadata: bytes, name: str) -> str:
    found = re.search(rf"^{name}: (\S+)$", metadata.decode(), re.MULTILINE)
    if found is None:
        raise BuildError(f"metadata without {name}")
    return found[1]
