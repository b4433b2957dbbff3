"""The results of the headline scenarios: a row for each system, as a table, as JSON, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from bench import early, rest, streaming, table
from bench.early import Early
from bench.figures import Ratio, Rounds, Summary, ratio, summary, together
from bench.headline import MS, Headline, headline_text
from bench.machine import Machine
from bench.ours import NAME
from bench.pools import EXECUTOR, LOOP
from bench.rest import Rest
from bench.scenarios import RATE
from bench.streaming import Streamed
from bench.submits import Spans
from bench.system import PACKAGE
from bench.table import Cell, Table

OURS = NAME
COLUMNS = "Task Engine, numpy columns"
STDOUT = "Task Engine, stdout into a file"
OVER_TCP = "Task Engine over tcp"
CURVE = "Task Engine, CURVE"
WIRE_1 = "Task Engine, wire 0.1"
FLUSHED = "Task Engine, flushed"
FLUSH_5 = f"{FLUSHED} every 5 ms"
FLUSH_30 = f"{FLUSHED} every 30 ms"
ECHO = "raw libzmq, ipc"
ECHO_TCP = "raw libzmq, tcp"
ECHO_WHOLE = "raw libzmq, ipc, a message a worker"
WIDTH = 132
US = 1e6
W1_TITLE = f"W1: {PACKAGE} tasks as one package"
W2_TITLE = "W2: single calls"
W3_TITLE = f"W3: {RATE} tasks a second"
W4_TITLE = f"W4: {PACKAGE} submits"
W1_HEADS = ["system", "ms p50", "ms p99", "x loop", "quartiles", "of medians", "x Task Engine"]
W2_HEADS = ["system", "µs p50", "µs p99", "x raw"]
W3_HEADS = ["system", "ms p50", "ms p99", "ms max", "p99 x raw"]
W4_HEADS = ["system", "ms p50", "ms p99", "x ProcessPoolExecutor", "quartiles", "µs a submit", "p99"]
W1_NOTE = (
    "The tasks are `task_count(2, 3)`. The time runs from the call until all results are there; the arguments are made "
    "before, and the results checked after that. In each round all systems take turns. A ratio is the median of the "
    "rounds' ratios; `quartiles` are those of x loop, and `of medians` is the ratio of the two medians. The pools use "
    "chunks of 50, as the engine does. Raw libzmq runs no tasks: it sends as many bytes over the same four hops, "
    "as messages of 800 bytes for 50 tasks, or as one large message for each worker. Its router and workers are "
    "written in C, and run under the engine's scheduling policy. Wire 0.1 is a plain pyzmq client, which sends frames "
    "made before, one by one; the time does not include reading the JSON of the results."
)
W2_NOTE = (
    "One call at a time, there and back. x raw is the median of the rounds' ratios to raw libzmq over the same "
    "transport: tcp where the row says so, otherwise ipc."
)
W3_NOTE = (
    "Tasks come one by one, at an even rate. A latency counts from the moment at which its task was due. Task Engine "
    "sends each task at once, as `call` does; in the rows with `flushed` it collects tasks first, as `submit` does. "
    "Raw libzmq gets them from one loop in C. x raw is the ratio of the p99s, as the median over the rounds."
)
W4_NOTE = (
    "Each with a future of its own, all results back and checked; and how long a submit holds up its caller, the mean "
    "of a package's. The client flushes every 5 ms; the executor takes the function, as the pool does. The ratio is "
    "the median of the rounds' ratios."
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system. `loop` is its W1 over the in-process loop's, `ours` over Task Engine's.

    `raw` is its W2 over raw libzmq's by the same transport, `raw_p99` that of the p99s of W3. `pool` is its W4 over
    ProcessPoolExecutor's, `caller` what a submit of W4 takes.
    """

    system: str
    w1: Summary | None = None
    loop: Ratio | None = None
    ours: Ratio | None = None
    w2: Summary | None = None
    raw: Ratio | None = None
    w3: Summary | None = None
    raw_p99: Ratio | None = None
    w4: Summary | None = None
    pool: Ratio | None = None
    caller: Summary | None = None


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
    early: list[Early]
    streams: list[Streamed]
    rest: Rest
    headline: Headline
    seconds: float


def rows(w1: Rounds, w2: Rounds, w3: Rounds, w4: Spans) -> list[Row]:
    """A row for each system that any scenario measured: the loop, raw libzmq, the engine, the others."""
    names = dict.fromkeys([*w1, *w2, *w3, *w4.results])
    kinds = (LOOP, "raw", OURS)
    ranked = sorted(
        names, key=lambda name: next((n for n, kind in enumerate(kinds) if name.startswith(kind)), len(kinds))
    )
    return [_row(name, w1, w2, w3, w4) for name in ranked]


def _row(name: str, w1: Rounds, w2: Rounds, w3: Rounds, w4: Spans) -> Row:
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
        # what coalesces waits on purpose
        raw_p99=None if name.startswith(FLUSHED) else over(w3, raw, 99),
        w4=all_of(w4.results),
        pool=over(w4.results, EXECUTOR),
        caller=all_of(w4.caller),
    )


def tables(results: Results) -> list[Table]:
    """A table for each scenario, of the systems that played it."""
    found = results.rows
    first = [_w1_cells(row, row.w1) for row in found if row.w1]
    second = [_w2_cells(row, row.w2) for row in found if row.w2]
    third = [_w3_cells(row, row.w3) for row in found if row.w3]
    fourth = [_w4_cells(row, row.w4, row.caller) for row in found if row.w4 and row.caller]
    return [
        Table(name="w1", title=W1_TITLE, note=W1_NOTE, heads=W1_HEADS, rows=first, bold=OURS),
        Table(name="w2", title=W2_TITLE, note=W2_NOTE, heads=W2_HEADS, rows=second, bold=OURS),
        Table(name="w3", title=W3_TITLE, note=W3_NOTE, heads=W3_HEADS, rows=third, bold=OURS),
        Table(name="w4", title=W4_TITLE, note=W4_NOTE, heads=W4_HEADS, rows=fourth, bold=OURS),
        early.table(results.early),
        streaming.table(results.streams),
    ]


def _w1_cells(row: Row, found: Summary) -> list[Cell]:
    loop = row.loop
    quartiles = f"{table.text(loop.low)}-{table.text(loop.high)}" if loop else None
    ratios = [loop.paired if loop else None, quartiles, loop.of_all if loop else None]
    return [row.system, found.p50 * MS, found.p99 * MS, *ratios, row.ours.paired if row.ours else None]


def _w2_cells(row: Row, found: Summary) -> list[Cell]:
    return [row.system, found.p50 * US, found.p99 * US, row.raw.paired if row.raw else None]


def _w3_cells(row: Row, found: Summary) -> list[Cell]:
    raw = row.raw_p99.paired if row.raw_p99 else None
    return [row.system, found.p50 * MS, found.p99 * MS, found.max * MS, raw]


def _w4_cells(row: Row, found: Summary, caller: Summary) -> list[Cell]:
    pool = row.pool
    quartiles = f"{table.text(pool.low)}-{table.text(pool.high)}" if pool else None
    ratios = [pool.paired if pool else None, quartiles]
    return [row.system, found.p50 * MS, found.p99 * MS, *ratios, caller.p50 * US, caller.p99 * US]


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
    """Return how busy other programs kept the machine before and after the run."""
    return f"Others kept {before:.0%} of the machine busy before, {after:.0%} after; waited {waited:.0f} s for them"


def print_report(results: Results, console: Console) -> None:
    """The tables, what they were measured on, and the headline last."""
    for made in tables(results):
        table.show(made, console)
        console.print()
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
