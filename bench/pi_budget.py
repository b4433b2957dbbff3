"""`python -m bench.pi_budget`: the instructions of a package of 4000 tasks, held against what a Pi 3 B+ has in 30 ms.

The count of the whole way, and each role's ratio to the count of the bare loop, stored in bench/pi_budget.json by
architecture and version of Python, must hold; else the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench import budget, counters
from bench.budget import BUDGET, TOTAL, BadCounts, Counted
from bench.compiled import NotCompiled, check_compiled
from bench.counters import ROOT, NoCounter, NotCounted

STORED = ROOT / "bench" / "pi_budget.json"
JSON_FILE = "pi-budget.json"
PACKAGES = 4
WIDTH = 96
PROGRAM = ("-m", "bench.roles", str(PACKAGES))
PI_ROOTS = "PI_ROOTS"
"""The variable that names the arm64 roots for QEMU, with colons between them."""

Stored = dict[str, dict[str, float]]


def main() -> int:
    """The exit code: 0 within the budget and the stored ratios, 1 beyond, or not counted."""
    parser = argparse.ArgumentParser(prog="python -m bench.pi_budget", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out", help="the folder for JSON")
    parser.add_argument("--store", action="store_true", help="store the ratios, for later runs to be held against")
    options = parser.parse_args()
    start = time.monotonic()
    stored = read_stored()
    done = []
    try:
        check_compiled()
        for counter, build, counts in count():
            rows = budget.rows(budget.per_package(counts, PACKAGES))
            if options.store:
                stored[build] = budget.ratios(rows)
            problems, notes = budget.judge(rows, stored.get(build), build)
            done.append(Counted(counter=counter, build=build, rows=rows, problems=problems, notes=notes))
    except (NotCompiled, NoCounter, NotCounted, BadCounts) as error:
        print(f"pi-budget: {error}", file=sys.stderr)
        return 1
    if options.store:
        _write(STORED, dict(sorted(stored.items())))
    options.out.mkdir(parents=True, exist_ok=True)
    write_report(options.out / JSON_FILE, done, time.monotonic() - start)
    console = Console()
    console.width = max(console.width, WIDTH)
    print_report(done, console)
    return int(any(counted.problems for counted in done))


def read_stored() -> Stored:
    """The stored ratios: by build, then by role."""
    return msgspec.json.decode(STORED.read_bytes(), type=Stored)


def count() -> Iterator[tuple[str, str, list[int]]]:
    """Each counter, the build that it counted, and the counts between marks. Raises NoCounter or NotCounted."""
    with tempfile.TemporaryDirectory() as folder:
        major, minor, _ = platform.python_version_tuple()
        yield "callgrind", f"{platform.machine()} {major}.{minor}", counters.callgrind(PROGRAM, Path(folder))
    named = os.environ.get(PI_ROOTS)
    if not named:
        print(f"pi-budget: {PI_ROOTS} names no arm64 root, so nothing is counted under QEMU", file=sys.stderr)
        return
    for root in map(Path, named.split(":")):
        with tempfile.TemporaryDirectory() as folder:
            counts = counters.qemu(PROGRAM, Path(folder), root)
            yield "QEMU's Cortex-A53", f"aarch64 {counters.arm64_python(root).name.removeprefix('python')}", counts


def write_report(path: Path, done: list[Counted], seconds: float) -> None:
    """All figures as JSON, instructions by package and by task, with what was counted on."""
    # only now: what it imports is to be compiled
    from bench.machine import this_machine

    report = {"package": budget.PACKAGE, "budget": BUDGET, "tolerance": budget.TOLERANCE, "counted": done}
    _write(path, {"machine": this_machine(), **report, "seconds": seconds})


def print_report(done: list[Counted], console: Console) -> None:
    """A table for each counter, what is to be told, and what is wrong."""
    for counted in done:
        console.print(_table(counted))
        for note in counted.notes:
            console.print(f"Note: {note}", highlight=False, soft_wrap=True)
    for counted in done:
        whole = next(row for row in counted.rows if row.role == TOTAL)
        console.print(
            f"{counted.counter}, {counted.build}: {whole.package / 1e6:.1f} million instructions for "
            f"{budget.PACKAGE} tasks, {whole.share:.0%} of the Pi's {BUDGET / 1e6:.0f} million in 30 ms",
            style="bold",
            highlight=False,
            soft_wrap=True,
        )
        for problem in counted.problems:
            print(f"pi-budget: {counted.build}: {problem}", file=sys.stderr)


def _table(counted: Counted) -> Table:
    table = Table(
        title=f"Instructions: {counted.counter}, {counted.build}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("role", no_wrap=True)
    for head in ("a task", "x bare loop", "a package, millions", "of the Pi's 30 ms"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in counted.rows:
        cells = f"{row.task:.0f}", f"{row.times_loop:.3f}", f"{row.package / 1e6:.2f}", f"{row.share:.1%}"
        table.add_row(row.role, *cells, style="bold" if row.role == TOTAL else None)
    return table


def _write(path: Path, content: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
