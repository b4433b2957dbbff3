"""Compiles an extension module for another Python and processor, and has auditwheel judge the wheel with it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from release.debian import headers
from release.running import run
from release.targets import FLAGS, GLIBC, LINKED, BuildError, Target


def compile_module(
    target: Target, sources: Iterable[Path], out: Path, options: Sequence[str] = (), libraries: Sequence[str] = ()
) -> bytes:
    """Compile C sources into one extension module at `out`, and return its bytes. Raises BuildError.

    `libraries` come behind the sources, as the linker wants them.
    """
    folders = [f"-I{folder}" for folder in headers(target)]
    root = out.parent.resolve()
    # of the folder that this is done in nothing stays in the module
    unnamed = f"-ffile-prefix-map={root}=."
    command = [target.processor.tool("gcc"), *FLAGS, *target.processor.flags, *folders, unnamed, *options]
    run([*command, *LINKED, *map(str, sources), *libraries, "-o", str(out)])
    return out.read_bytes()


def judge(wheel: Path) -> str:
    """Return the platform that auditwheel gives to a wheel, which its name may not go below. Raises BuildError."""
    told = run([sys.executable, "-m", "auditwheel", "show", str(wheel)])
    found = re.search(r'platform\s+tag:\s+"(\w+)"', told)
    if found is None:
        raise BuildError(f"auditwheel says of {wheel.name}: {told}")
    glibc = re.fullmatch(r"manylinux_(\d+)_(\d+)_\w+", found[1])
    if glibc is None or tuple(map(int, glibc.groups())) > GLIBC or not wheel.stem.endswith(found[1].split("_", 3)[3]):
        raise BuildError(f"auditwheel says that {wheel.name} is no more than {found[1]}:\n{told}")
    return found[1]
