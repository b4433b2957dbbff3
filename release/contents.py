"""What goes into our wheels: asked of setuptools in a copy of the files that git has, so that nothing else gets in."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from release.running import run

ROOT = Path(__file__).resolve().parents[1]
COMPILED = ("_fastpath", "_socket", "_descendants")


@dataclass(frozen=True)
class Contents:
    """The Python files and the metadata of our wheels, and the C that Cython has made."""

    name: str
    version: str
    files: dict[str, bytes]
    info: dict[str, bytes]
    sources: dict[str, Path]


def copy_sources(folder: Path) -> Path:
    """Copy the files that git has, or would take, into a folder, and return it. Raises BuildError."""
    for name in run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).split("\0"):
        path = ROOT / name
        if name and path.is_file() and not name.startswith(("tests/", "bench/", "docs/", ".ci/")):
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    return folder


def contents(copy: Path, out: Path) -> Contents:
    """Have setuptools put together, below `out`, what belongs into a wheel, without a compiler. Raises BuildError."""
    build = ["build_py", "--build-lib", str(out / "lib"), "dist_info", "--output-dir", str(out)]
    run([sys.executable, "setup.py", "--quiet", *build], copy)
    [metadata] = out.glob("*.dist-info")
    name, _, version = metadata.name.removesuffix(".dist-info").partition("-")
    return Contents(
        name=name,
        version=version,
        files=_files(out / "lib"),
        info={path: data for path, data in _files(metadata).items() if path != "RECORD"},
        sources={module: copy / "taskengine" / f"{module}.c" for module in COMPILED},
    )


def make_sdist(copy: Path, out: Path) -> Path:
    """Have setuptools make the sdist below `out`, and return its path. Raises BuildError."""
    run([sys.executable, "setup.py", "--quiet", "sdist", "--formats", "gztar", "--dist-dir", str(out / "sdist")], copy)
    [made] = (out / "sdist").iterdir()
    return made


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
