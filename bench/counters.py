"""Counts a program's instructions: by callgrind on this machine, by QEMU's emulator of aarch64 where there is a root.

Both give the instructions in user space between calls of getppid(2), those before the first call included.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "bench" / "icount.c"
PACKAGES = {"valgrind": "valgrind", "qemu-aarch64": "qemu-user", "cc": "gcc"}
"""Programs, each with the Debian package that has it."""
LIMIT_S = 600.0
_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)
_FOREIGN = ("PYTHON", "TASKENGINE_", "LD_", "MALLOC_", "GLIBC_TUNABLES")


class NoCounter(Exception):
    """A counter cannot be started here; the text says what to install."""


class NotCounted(Exception):
    """The counter or the program failed; the text holds what it printed."""


def callgrind(program: Sequence[str], folder: Path) -> list[int]:
    """Run `program`, arguments of this Python, under callgrind, which writes to `folder`.

    Raises NoCounter or NotCounted.
    """
    _need("valgrind")
    out = folder / "callgrind"
    _run(
        [
            *("valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", "--dump-before=getppid"),
            *(sys.executable, *program),
        ],
        folder,
        PYTHONPATH=str(ROOT),
    )
    # one file for each call, numbered from 1, and one without a number for what came after the last
    parts = sorted(folder.glob(f"{out.name}.*"), key=lambda path: int(path.suffix[1:]))
    return [total(path.read_text(errors="replace")) for path in parts]


def total(text: str) -> int:
    """The instructions in a file of callgrind. Raises NotCounted."""
    found = _TOTAL.search(text)
    if found is None:
        raise NotCounted(f"callgrind wrote a file without a line `totals: ` and one number:\n{text[:500]}")
    return int(found[1])


def qemu(program: Sequence[str], folder: Path, root: Path) -> list[int]:
    """Run `program`, arguments of Python, as on a Cortex-A53, by what is in `root`. Raises NoCounter or NotCounted.

    The plugin is compiled, and our wheel built, in `folder`; what else is imported lies beside the root. `python -m
    tests.arm --counting` makes roots.
    """
    _need("qemu-aarch64", "cc")
    python = arm64_python(root)
    plugin, counts, installed = folder / "icount.so", folder / "counts", folder / "installed"
    _run(["cc", "-shared", "-fPIC", "-O2", "-o", str(plugin), str(PLUGIN)], folder)
    tag = python.name.replace("python", "cp").replace(".", "")
    # what is counted is what users install
    _run([sys.executable, "-m", "release.wheels", f"{tag}-aarch64", "--dist", str(folder)], ROOT)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(installed)
    (installed / "bench").symlink_to(ROOT / "bench")
    variables = {"PYTHONHOME": root / "usr", "PYTHONPATH": f"{installed}:{beside(root)}"}
    settings = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    _run(
        [
            *("qemu-aarch64", "-L", str(root), "-cpu", "cortex-a53", "-plugin", str(plugin), *settings),
            *(str(python), *program),
        ],
        folder,
        COUNT_OUT=str(counts),
    )
    return [int(line) for line in counts.read_text().split()]


def beside(root: Path) -> Path:
    """The folder of pyzmq and msgspec for a root."""
    return root.with_name(f"{root.name}-site")


def arm64_python(root: Path) -> Path:
    """The Python of an arm64 root, with its version as its name. Raises NoCounter."""
    python = root / "usr" / "bin" / "python3"
    if not python.is_file():
        raise NoCounter(f"{root} holds no arm64 Python; `python -m tests.arm --counting` makes roots")
    return python.resolve()


def _need(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        raise NoCounter(f"{' and '.join(missing)} missing: apt install {packages}")


def _run(command: Sequence[str], folder: Path, **variables: str) -> None:
    """Run a command in `folder`, with what it needs of the environment and `variables`. Raises NotCounted."""
    # what else a shell may have set would change what is run, or its count
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    environment = {**kept, "PYTHONHASHSEED": "0", **variables}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotCounted(f"{command[0]} took more than {LIMIT_S:g} s") from None
    if done.returncode:
        raise NotCounted(f"{command[0]} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-2000:]}")
