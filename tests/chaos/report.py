"""The plan and the results of a run of chaos: as text, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from rich.console import Console

from bench import table
from bench.table import Cell, Table
from tests.chaos.ledger import Judgement


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`broken` has a line for each guarantee that did not hold; `done` and `deaths` are counted by kind."""

    seconds: float
    seed: int
    done: dict[str, int]
    deaths: dict[str, int]
    worker_recoveries_s: list[float]
    router_recoveries_s: list[float]
    judgement: Judgement
    broken: list[str]


def quantile(values: Sequence[float], share: float) -> float:
    """The least of the sorted values that so large a share of them does not exceed; NaN where there are none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def show(report: Report, console: Console) -> None:
    """Print it."""
    judgement = report.judgement
    happened: list[list[Cell]] = []
    for what, counts in ("done", report.done), ("ended", report.deaths), ("error", judgement.errors):
        happened += [[f"{what}: {kind}", count] for kind, count in sorted(counts.items())]
    happened += [
        ["tasks offered", judgement.offered],
        ["results", judgement.results],
        ["values of streams", judgement.values],
        ["bare sockets: replies after their timeout", judgement.late],
        ["bare sockets: replies lost with the router", judgement.excused],
    ]
    recoveries: list[list[Cell]] = [
        [what, len(values), *(1e3 * quantile(values, share) for share in (0.5, 0.99, 1.0))]
        for what, values in (
            ("a killed worker, until another is online", report.worker_recoveries_s),
            ("a killed router, until a task's result", report.router_recoveries_s),
        )
    ]
    waits = ", ".join(f"{client} {seconds:.2f} s" for client, seconds in judgement.longest_s.items())
    title = f"{report.seconds:g} s of chaos, seed {report.seed}"
    heads = ["ms", "times", "median", "p99", "worst"]
    table.show(
        Table(
            name="", title=title, note=f"Longest wait for an answer: {waits}.", heads=["what", "times"], rows=happened
        ),
        console,
    )
    table.show(Table(name="", title="Recovery", note="", heads=heads, rows=recoveries), console)
    for line in report.broken:
        console.print(f"BROKEN: {line}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    if not report.broken:
        console.print("Every guarantee held.")
