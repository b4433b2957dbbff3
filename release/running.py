"""Runs a command, and tells what it said only where it failed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from release.targets import BuildError


def run(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a command and return what it prints. Raises BuildError with what it says if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout
