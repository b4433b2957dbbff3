"""Runs targets, each in a process of its own, and says what came of it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.sanitized import REPORTS, environment

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
TARGETS = tuple(sorted(path.stem for path in (FOLDER / "targets").glob("[a-z]*.py")))
ATHERIS, RANDOM = "atheris", "random"
IN_EACH = {"router": 16, "cost": 8}
"""How many messages an input of a target holds, where it is they that are counted."""
SLOWER = {"cost": 20, "values": 5}
"""Targets of which an input takes so many times longer: so many times fewer are run."""
PLAIN = {"settings_file"}
"""Targets without compiled code, which need no sanitizers."""
_LINES_TOLD = 60
_MARKS = (*REPORTS, "Uncaught Python exception", "ERROR: libFuzzer", "Traceback")
"""The beginning of a report."""


class Result(NamedTuple):
    """The results of a target: inputs, seconds, features that the inputs reached (-1 unknown), and what went wrong."""

    target: str
    inputs: int
    seconds: float
    features: int
    problem: str


def engine() -> str:
    """Return the driver of the targets: atheris, or, where it is not installed, inputs drawn at random."""
    return ATHERIS if importlib.util.find_spec("atheris") else RANDOM


def module_of(target: str) -> str:
    """The module that holds a target."""
    return f"{__package__}.targets.{target}"


@contextmanager
def _grown(keep: Path | None, target: str) -> Iterator[Path]:
    """The folder to which inputs that reach something new are added."""
    if keep is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    folder_kept = keep / target
    folder_kept.mkdir(parents=True, exist_ok=True)
    yield folder_kept


def run_target(target: str, runs: int, seed: int, found: Path, keep: Path | None, env: dict[str, str]) -> Result:
    """Run one; the input of a failure is written to `found`, what reaches something new to a folder in `keep`."""
    used, each = engine(), IN_EACH.get(target, 1)
    runs = -(-runs // SLOWER.get(target, 1))
    found.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with _grown(keep, target) as grown:
        corpora = [str(folder) for folder in (grown, CORPUS / target) if folder.is_dir()]
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.child",
            used,
            module_of(target),
            str(-(-runs // each)),
            str(seed),
            str(found),
        ]
        done = subprocess.run(
            [*command, *corpora],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    output = done.stdout.decode(errors="replace")
    seconds = time.monotonic() - start
    counted = re.findall(r"^(?:stat::number_of_executed_units:|inputs:) *(\d+)", output, re.MULTILINE)
    features = re.findall(r"\bft: (\d+)", output)
    inputs = int(counted[-1]) * each if counted else 0
    problem = ""
    if done.returncode or inputs < runs:
        problem = f"exit code {done.returncode} after {inputs} inputs\n{_end(output)}"
    return Result(target, inputs, seconds, int(features[-1]) if features else -1, problem)


def _end(output: str) -> str:
    """The report on what was found, or, where there is none, what was printed last."""
    lines = output.splitlines()
    first = next((place for place, line in enumerate(lines) if any(mark in line for mark in _MARKS)), -_LINES_TOLD)
    return "\n".join(lines[first:][:_LINES_TOLD])


def run(
    targets: Sequence[str], runs: int, seed: int, found: Path, keep: Path | None = None, jobs: int | None = None
) -> list[Result]:
    """Run so many inputs through each target, `jobs` targets at a time. Raises CannotBuild."""
    sanitized = environment()
    plain = {**os.environ, "PYTHONHASHSEED": "0"}
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        return list(
            pool.map(
                lambda target: run_target(target, runs, seed, found, keep, plain if target in PLAIN else sanitized),
                targets,
            )
        )
