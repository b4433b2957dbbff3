"""What a run of the headline scenarios found: a row for each system, as a table, as JSON, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from bench import rest, table
from bench.figures import Ratio, Rounds, Summary, ratio, summary, together
from bench.headline import MS, Headline, headline_text
from bench.machine import Machine
from bench.pools import LOOP
from bench.rest import Rest
from bench.scenarios import RATE
from bench.system import PACKAGE
from bench.table import Cell, Table

OURS = "Task Engine"
COLUMNS = "Task Engine, numpy columns"
STDOUT = "Task Engine, stdout into a file"
OVER_TCP = "Task Engine over tcp"
CURVE = "Task Engine, CURVE"
WIRE_1 = "Task Engine, wire 0.1"
AT_ONCE = "Task Engine, each sent at once"
FLUSH_5 = "Task Engine, flushed every 5 ms"
ECHO = "raw libzmq, ipc"
ECHO_TCP = "raw libzmq, tcp"
ECHO_WHOLE = "raw libzmq, ipc, a message a worker"
WIDTH = 132
US = 1e6
HEADS = ["system", "W1 ms", "p99", "x loop", "quartiles", "of medians", "x ours"]
HEADS += ["W2 µs", "p99", "x raw", "W3 ms", "p99", "max", "p99 x raw"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system. `loop` is its W1 over the in-process loop's, `ours` over Task Engine's.

    `raw` is its W2 over raw libzmq's by the same transport, `raw_p99` that of the p99s of W3.
    """

    system: str
    w1: Summary | None = None
    loop: Ratio | None = None
    ours: Ratio | None = None
    w2: Summary | None = None
    raw: Ratio | None = None
    w3: Summary | None = None
    raw_p99: Ratio | None = None


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run of the headline scenarios, which began at `when` and took `seconds`.

    `busy_before` and `busy_after` are the shares of the machine that others used at its ends, `waited` how many s it
    waited for them.
    """

    machine: Machine
    settings: dict[str, Any]
    when: str
    busy_before: float
    busy_after: float
    waited: float
    rows: list[Row]
    rest: Rest
    headline: Headline
    seconds: float


def rows(w1: Rounds, w2: Rounds, w3: Rounds) -> list[Row]:
    """A row for each system that any scenario measured: the loop, raw libzmq, the engine, the others."""
    names = dict.fromkeys([*w1, *w2, *w3])
    kinds = (LOOP, "raw", OURS)
    ranked = sorted(
        names, key=lambda name: next((n for n, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))
    )
    return [_row(name, w1, w2, w3) for name in ranked]


def _row(name: str, w1: Rounds, w2: Rounds, w3: Rounds) -> Row:
    raw = ECHO_TCP if "tcp" in name else ECHO

    def over(samples: Rounds, other: str, percent: float = 50) -> Ratio | None:
        both = name in samples and other in samples and name != LOOP
        return ratio(samples[name], samples[other], percent) if both else None

    def all_of(samples: Rounds) -> Summary | None:
        return summary(together(samples[name])) if name in samples else None

    return Row(
        system=name,
        w1=all_of(w1),
        loop=over(w1, LOOP),
        ours=over(w1, OURS),
        w2=all_of(w2),
        raw=over(w2, raw),
        w3=all_of(w3),
        raw_p99=over(w3, raw, 99),
    )


def headline_table(found: list[Row]) -> Table:
    """All rows."""
    return Table(
        name="headline",
        title=f"{PACKAGE} tasks, single calls, an even rate",
        note=f"W1: {PACKAGE} task_count(2, 3) as one package, arguments made before, all results back and checked. W2: "
        f"one there and back, one at a time. W3: {RATE} tasks/s offered evenly, latency from the instant each was due. "
        "Medians unless it says otherwise. x loop, x ours and x raw are medians of the ratios of rounds in which all "
        "took turns; quartiles are those of x loop; x raw is over raw libzmq by the same transport (ipc unless it says "
        f"tcp), for W3 of the p99s. Raw libzmq sends {PACKAGE} tasks as messages of 800 bytes for 50, or as one large "
        "message for each worker. Wire 0.1 is a plain pyzmq client that sends frames made before, one by one; "
        "reading its JSON is not in the span.",
        heads=HEADS,
        rows=[_cells(row) for row in found],
        bold=OURS,
    )


def _cells(row: Row) -> list[Cell]:
    first, second, third, loop = row.w1, row.w2, row.w3, row.loop
    return [
        row.system,
        first.p50 * MS if first else None,
        first.p99 * MS if first else None,
        loop.paired if loop else None,
        f"{table.text(loop.low)}-{table.text(loop.high)}" if loop else None,
        loop.of_all if loop else None,
        row.ours.paired if row.ours else None,
        second.p50 * US if second else None,
        second.p99 * US if second else None,
        row.raw.paired if row.raw else None,
        third.p50 * MS if third else None,
        third.p99 * MS if third else None,
        third.max * MS if third else None,
        row.raw_p99.paired if row.raw_p99 else None,
    ]


def measured_on(machine: Machine, settings: dict[str, Any]) -> list[str]:
    """Machine, versions, settings, a line each."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    set_to = ", ".join(f"{name.upper()} {value}" for name, value in settings.items())
    return [
        f"Machine: {machine.name}; CPU {machine.cpu}, {machine.cores} cores, {machine.memory_mb} MB; {machine.system}",
        f"Versions: {versions}",
        f"Settings: {set_to}",
    ]


def disturbance(before: float, after: float, waited: float) -> str:
    """What others did to the run."""
    return f"Others kept {before:.0%} of the machine busy before, {after:.0%} after; waited {waited:.0f} s for them"


def print_report(results: Results, console: Console) -> None:
    """The table, what it was measured on, and the headline last."""
    table.show(headline_table(results.rows), console)
    lines = [rest.text(results.rest), *measured_on(results.machine, results.settings)]
    lines += [disturbance(results.busy_before, results.busy_after, results.waited), f"Took {results.seconds:.0f} s"]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    console.print()
    headline = headline_text(results.headline, results.machine)
    console.print(headline, style="bold", highlight=False, soft_wrap=True)


def write_json(results: msgspec.Struct, path: Path) -> None:
    """All figures, times in s."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
