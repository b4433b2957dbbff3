"""What was measured, for people: a table, a picture, JSON, and the headline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from bench.figures import Summary, summary
from bench.machine import Machine
from bench.scenarios import PACKAGE, RATE, Samples

BARE = "in-process loop"
OURS = "Task Engine"
STDOUT = "Task Engine, stdout in a file"
WIRE_1 = "Task Engine, wire 0.1"
FLUSH_5 = "Task Engine, 5 ms flush"
WIDTH = 104
MS = 1e3
US = 1e6


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system. `times_loop` is the median of its W1 over that of the in-process loop in the same run."""

    system: str
    w1: Summary | None = None
    times_loop: float | None = None
    w2: Summary | None = None
    w3: Summary | None = None


class Headline(msgspec.Struct, frozen=True, kw_only=True):
    """The largest package, and the highest rate in tasks/s, whose p99 is within `response_time` s; 0 for none."""

    package: int
    rate: int
    response_time: float
    chunking_size: int


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `stdout_cost` is W1 with ENABLE_STDOUT into a file over W1 without, as medians."""

    machine: Machine
    settings: dict[str, Any]
    rows: list[Row]
    stdout_cost: float
    headline: Headline
    seconds: float


def rows(w1: Samples, w2: Samples, w3: Samples) -> list[Row]:
    """A row for each system that any scenario measured; ratios are of medians."""
    bare = summary(w1[BARE]).p50
    found = []
    names = dict.fromkeys([*w1, *w2, *w3])
    for name in sorted(names, key=lambda name: (name != BARE, not name.startswith(OURS))):
        first, second, third = (summary(samples[name]) if name in samples else None for samples in (w1, w2, w3))
        ratio = first.p50 / bare if first else None
        found.append(Row(system=name, w1=first, times_loop=ratio, w2=second, w3=third))
    return found


def headline_text(headline: Headline, machine: Machine) -> str:
    """The headline in the seed's form, and the rate beside it."""
    limit = f"{headline.response_time * MS:g}ms response-time & {headline.chunking_size} chunk-size"
    rate = f"{headline.rate} tasks/s held" if headline.rate else "no rate held"
    return f"IO = {headline.package} @ {limit}, on {machine.name} ({rate} at that response time)"


def print_report(results: Results, console: Console) -> None:
    """The table, what it was measured on, and the headline last."""
    console.print(_table(results.rows))
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    settings = ", ".join(f"{name.upper()} {value}" for name, value in results.settings.items())
    for text in (
        f"W1: {PACKAGE} task_count(2, 3) as one package, all results checked. W2: one there and back, one at a time. "
        f"W3: {RATE} tasks/s offered evenly, latency from the instant each was due.",
        f"Ratios are of medians of this run; x loop divides W1 by the in-process loop. Lines into a file cost "
        f"{results.stdout_cost:.2f} times the W1 without.",
        f"Machine: {machine.name}; CPU {machine.cpu}, {machine.cores} cores, {machine.memory_mb} MB; {machine.system}",
        f"Versions: {versions}",
        f"Settings: {settings}",
        f"Took {results.seconds:.0f} s",
    ):
        console.print(text, highlight=False, soft_wrap=True)
    console.print()
    console.print(headline_text(results.headline, machine), style="bold", highlight=False, soft_wrap=True)


def _table(entries: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("\nsystem", no_wrap=True)
    ours = next((row for row in entries if row.system == OURS), None)
    for head in ("W1 ms\np50", "\np99", "\nx loop", "\nx ours", "W2 µs\np50", "\np99", "W3 ms\np50", "\np99", "\nmax"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in entries:
        style = "bold" if row.system == OURS else None
        table.add_row(row.system, *_cells(row, ours), style=style)
    return table


def _cells(row: Row, ours: Row | None) -> list[str]:
    compared = row.w1.p50 / ours.w1.p50 if row.w1 and ours and ours.w1 else None
    first, second, third = row.w1, row.w2, row.w3
    return [
        _number(first.p50 * MS if first else None),
        _number(first.p99 * MS if first else None),
        _number(row.times_loop),
        _number(compared),
        _number(second.p50 * US if second else None),
        _number(second.p99 * US if second else None),
        _number(third.p50 * MS if third else None),
        _number(third.p99 * MS if third else None),
        _number(third.max * MS if third else None),
    ]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 10 else f"{value:#.2g}"


def write_json(results: Results, path: Path) -> None:
    """All figures, times in s."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def draw(results: Results, panels: list[tuple[str, float, Samples]], path: Path) -> None:
    """The distributions as a PNG: for each panel (title, its unit's number in a second, samples), how many are slower.

    Raises ImportError where matplotlib is missing.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.5), layout="constrained")
    colours = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(row.system for row in results.rows))}
    lines: dict[str, Any] = {}
    for place, (title, unit, samples) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        for name, values in samples.items():
            ordered = sorted(values)
            slower = [1 - rank / len(ordered) for rank in range(len(ordered))]
            width = 2.4 if name == OURS else 1.2
            (lines[name],) = axes.step(
                [value * unit for value in ordered], slower, where="post", color=colours[name], linewidth=width
            )
        axes.axhline(0.01, color="0.5", linestyle=":", linewidth=1)
        axes.text(0.01, 0.0104, "p99", color="0.4", ha="left", va="bottom", transform=axes.get_yaxis_transform())
        axes.set(title=title, xscale="log", yscale="log", ylabel="share that took longer" if place == 1 else "")
        axes.set_xlabel({MS: "ms", US: "µs"}[unit])
        axes.grid(True, which="both", alpha=0.15)
    figure.suptitle(headline_text(results.headline, results.machine))
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=110)
