"""The C programs of this folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
HEADERS = HERE.parent.parent / "taskengine"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{HEADERS}")


def compiled(source: str, to: Path, *flags: str, compiler: str = "gcc") -> Path:
    """Compile one of the programs."""
    subprocess.run([compiler, *FLAGS, *flags, str(HERE / source), "-o", str(to)], check=True)
    return to


def race(program: Path, between: str, rounds: int, seed: int = 1) -> str:
    """Race between "threads" or "processes"; return what it printed, also where it failed."""
    done = subprocess.run(
        [program, between, str(rounds), str(seed)], capture_output=True, text=True, check=False, timeout=3600
    )
    return f"exit code {done.returncode}: {done.stdout}{done.stderr}"
