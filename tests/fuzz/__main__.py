"""`python -m tests.fuzz [TARGET…]`: run inputs through decoders, chunker, assembler, settings file and router."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import table
from bench.table import Cell, Table
from tests.fuzz.run import ATHERIS, TARGETS, Result, engine, run
from tests.sanitized import ROOT, CannotBuild

RUNS = 1_000_000


def main() -> int:
    """The exit code: 0 nothing was found, 1 something was, 2 it could not be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all where none is given"
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="inputs for each")
    parser.add_argument("--seed", type=int, default=1, help="what they are")
    parser.add_argument("--jobs", type=int, help="how many targets at a time; one for each core where it is not given")
    parser.add_argument("--grown", type=Path, help="begin with, and add to, inputs of earlier runs in this folder")
    parser.add_argument(
        "--found", type=Path, default=ROOT / "build" / "fuzz" / "found", help="where failing inputs are written"
    )
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    try:
        results = run(
            options.targets or TARGETS, options.runs, options.seed, options.found, options.grown, options.jobs
        )
    except CannotBuild as error:
        print(f"tests.fuzz: {error}", file=sys.stderr)
        return 2
    _show(results, options.seed, options.found)
    return 1 if any(result.problem for result in results) else 0


def _show(results: list[Result], seed: int, found: Path) -> None:
    console = Console()
    rows: list[list[Cell]] = [
        [
            result.target,
            f"{result.inputs:,}",
            f"{result.seconds:.1f}",
            str(result.features) if result.features >= 0 else "?",
            "failed" if result.problem else "nothing found",
        ]
        for result in results
    ]
    guide = (
        "atheris, guided by the coverage of Python and of the compiled modules"
        if engine() == ATHERIS
        else "inputs drawn at random, nothing guides them: atheris is not installed here"
    )
    note = f"AddressSanitizer and UBSan, seed {seed}; {guide}. Inputs that fail lie in {found}."
    heads = ["target", "inputs", "s", "features", ""]
    table.show(Table(name="", title="Fuzzing", note=note, heads=heads, rows=rows), console)
    for result in results:
        if result.problem:
            console.print(f"\n{result.target}: {result.problem}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
