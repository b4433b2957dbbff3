"""The wheels that a machine without a compiler installs from: ours, just built, and those of what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.arm.machine import REPOSITORY
from tests.arm.roots import Root, pip

NEEDED = ("pyzmq>=25,<28", "msgspec>=0.18", "click>=8.1", "rich>=13", "gpiozero>=2,<2.1", "lgpio>=0.2.2")
"""What pyproject.toml wants of us and of `[hardware]`."""


def fill(root: Root, folder: Path, built: Path | None) -> None:
    """Put a root's wheels into a folder; what PyPI has none for is in the folder `built`. Raises CalledProcessError."""
    build = [sys.executable, "-m", "release.wheels", str(root.target), "--dist", str(folder)]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    others = ["--find-links", str(built.absolute())] if built is not None else []
    subprocess.run([*pip("download", root.target), *others, "--dest", str(folder), *NEEDED], check=True)
