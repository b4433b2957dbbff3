"""Builds wheels of libraries that have none for a target, from their own sources, and keeps their licences."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from release.archive import write_wheel
from release.compiling import compile_module, judge
from release.running import run
from release.sources import LGPIO, MSGSPEC
from release.targets import BuildError, Target


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


RECIPES: Mapping[str, Callable[[Target, Path, Path, int], Path]] = {"lgpio": lgpio_wheel, "msgspec": msgspec_wheel}
"""What can be built here, by its name on PyPI."""


def _finish(target: Target, dist: Path, source: Path, files: dict[str, bytes], date: int) -> Path:
    """Write the wheel with the metadata and the licences of a source, and have auditwheel judge it."""
    metadata = (source / "PKG-INFO").read_bytes()
    name, version = (_field(metadata, field) for field in ("Name", "Version"))
    licences = [path for path in source.iterdir() if path.name.startswith("LICENSE") and path.is_file()]
    if not licences:
        raise BuildError(f"{name} has no licence to keep in {source}")
    info = {"METADATA": metadata} | {f"licenses/{path.name}": path.read_bytes() for path in licences}
    wheel = write_wheel(dist, name, version, target.tag, files, info, date)
    judge(wheel)
    return wheel


def _field(metadata: bytes, name: str) -> str:
    found = re.search(rf"^{name}: (\S+)$", metadata.decode(), re.MULTILINE)
    if found is None:
        raise BuildError(f"metadata without {name}")
    return found[1]
