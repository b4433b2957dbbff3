"""The run of `make bench-peers`: each peer that is there beside the loop and the engine, one peer after the other."""

from __future__ import annotations

import datetime
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench import page, report, table
from bench.engine import Engine
from bench.figures import Ratio, Rounds, Summary, percentile, ratio, summary, together
from bench.headline import MS
from bench.machine import Machine, busy_elsewhere, this_machine
from bench.matrix.loads import TASKS
from bench.ours import Ours
from bench.peers.play import NAMES
from bench.pools import LOOP, Loop
from bench.quiet import Quiet
from bench.remote import PeerFailed, Remote
from bench.report import OURS, US
from bench.run import FAILURES, LOOK_S, SETTINGS, say, wide_console
from bench.scenarios import Measure, in_turns, package_measure
from bench.span import Block, Job, in_a_row, timed_call, timed_package
from bench.system import PACKAGE, WORKERS, System
from bench.table import Cell, Table

JSON_FILE = "peers.json"
COMMAND = "make bench-peers"
PATIENCE_S = 300.0
HEADS = ["system", "way", "W1 ms", "x loop", "x ours", "W2 µs", "p99", "W2 x ours"]
WAYS = {
    "loky": "executor.map, chunks of 50",
    "ipyparallel": "direct view, a share an engine",
    "ray": "bags of 50",
    "dask": "map over bags of 50",
    "huey": "bags of 50, Redis",
    "celery": "task.chunks(50), Redis",
    "dramatiq": "group of bags of 50, Redis",
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds of each peer; blocks of packages, of calls, and of streams of so many values."""

    rounds: int = 7
    packages: Block = Block(3, 10, 2.0)
    calls: Block = Block(10, 100, 2.0)
    streams: Block = Block(1, 3, 4.0)
    values: int = 1000


FULL = Plan()
QUICK = Plan(rounds=1, packages=Block(1, 1), calls=Block(1, 3), streams=Block(0, 1), values=100)


class PeerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A peer, or what was measured beside it; `loop` and `ours` are its W1 over the loop's and over Task Engine's.

    `calls` is its W2 over Task Engine's, `streamed` that of the values of a stream, where it has something like that.
    """

    system: str
    version: str
    way: str
    w1: Summary
    loop: Ratio
    ours: Ratio
    w2: Summary
    calls: Ratio
    stream: Summary | None = None
    streamed: Ratio | None = None


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run; `missing` says of each peer that was not measured, why."""

    machine: Machine
    settings: dict[str, Any]
    when: str
    busy_before: float
    busy_after: float
    waited: float
    rows: list[PeerRow]
    missing: dict[str, str]
    seconds: float


def run(out: Path, page_file: Path, python: Path, *, quick: bool) -> int:
    """Measure, print, write JSON to `out` and the part of the page; the exit code, 1 where no peer is there."""
    start = time.monotonic()
    when = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    before = busy_elsewhere(LOOK_S)
    quiet = Quiet(0.0 if quick else PATIENCE_S)
    rows: list[PeerRow] = []
    missing: dict[str, str] = {}
    for name in NAMES:
        say(name)
        try:
            rows += measure(name, python, out / f"peer-{name}.log", QUICK if quick else FULL, quiet)
        except (PeerFailed, *FAILURES) as error:
            missing[name] = str(error)
    for name, why in missing.items():
        print(f"bench: {name} was not measured: {why}", file=sys.stderr)
    if not rows:
        print(f"bench: no peer is there to be measured; `{COMMAND}` installs them", file=sys.stderr)
        return 1
    peers = Peers(
        machine=this_machine(),
        settings={**SETTINGS, "task_workers": WORKERS},
        when=when,
        busy_before=before,
        busy_after=busy_elsewhere(LOOK_S),
        waited=quiet.waited,
        rows=rows,
        missing=missing,
        seconds=time.monotonic() - start,
    )
    report.write_json(peers, out / JSON_FILE)
    made = peers_table(rows)
    table.show(made, wide_console())
    old = page_file.read_text() if page_file.exists() else ""
    page_file.parent.mkdir(parents=True, exist_ok=True)
    page_file.write_text(page.compose({"peers": page_part(peers, made)}, old))
    print(f"Written: {out / JSON_FILE}, {page_file}")
    return 0


def measure(name: str, python: Path, log: Path, plan: Plan, quiet: Quiet) -> list[PeerRow]:
    """The rows of a peer, of the loop and of the engine beside it. Raises PeerFailed or one of FAILURES."""
    if not python.exists():
        raise PeerFailed(f"there is no {python}")
    with ExitStack() as stack:
        remote = Remote(name, python, log)
        stack.callback(remote.close)
        engine = stack.enter_context(Engine(**SETTINGS, tasks=TASKS))
        ours = Ours(OURS, engine.address)
        stack.callback(ours.close)
        packages: dict[str, Measure] = {name: partial(remote.package, PACKAGE, plan.packages)}
        calls: dict[str, Measure] = {name: partial(remote.calls, plan.calls)}
        systems: list[System] = [Loop(), ours]
        for system in systems:
            packages[system.name] = package_measure(system, PACKAGE, plan.packages)
            calls[system.name] = partial(_calls, system, plan.calls)
        w1, w2 = in_turns(packages, plan.rounds, quiet), in_turns(calls, plan.rounds, quiet)
        w6 = _streams(remote, ours, plan, quiet) if remote.has_streams else {}
    return [
        PeerRow(
            system=name if system == name else f"{system}, beside {name}",
            version=remote.version if system == name else "",
            way=WAYS[name] if system == name else "",
            w1=summary(together(w1[system])),
            loop=ratio(w1[system], w1[LOOP]),
            ours=ratio(w1[system], w1[OURS]),
            w2=summary(together(w2[system])),
            calls=ratio(w2[system], w2[OURS]),
            stream=summary(together(w6[system])) if system in w6 else None,
            streamed=ratio(w6[system], w6[OURS]) if system in w6 else None,
        )
        for system in (name, OURS, LOOP)
    ]


def _streams(remote: Remote, ours: Ours, plan: Plan, quiet: Quiet) -> Rounds:
    """Return the s for each value of a stream, of the peer and of the engine."""
    expected = list(range(plan.values))
    read = Job(lambda: list(ours.client.stream("bench.values", plan.values)))
    measures: dict[str, Measure] = {
        remote.name: partial(remote.stream, plan.values, plan.streams),
        OURS: partial(in_a_row, partial(timed_package, OURS, read, expected), plan.streams),
    }
    took = in_turns(measures, plan.rounds, quiet)
    return {name: [[seconds / plan.values for seconds in block] for block in rounds] for name, rounds in took.items()}


def _calls(system: System, block: Block) -> list[float]:
    return in_a_row(lambda: timed_call(system.name, system.one), block)


def peers_table(rows: list[PeerRow]) -> Table:
    """The peers from the fastest on, and the medians of what was measured beside them."""
    peers = sorted((row for row in rows if row.way), key=lambda row: row.ours.paired)
    cells: list[list[Cell]] = []
    for system in (LOOP, OURS):
        beside = [row for row in rows if row.system.startswith(f"{system}, beside")]
        cells.append(
            [
                system,
                "",
                percentile([row.w1.p50 for row in beside], 50) * MS,
                percentile([row.loop.paired for row in beside], 50) if system == OURS else None,
                None,
                percentile([row.w2.p50 for row in beside], 50) * US,
                percentile([row.w2.p99 for row in beside], 50) * US,
                None,
                percentile(streams, 50) * US if (streams := [row.stream.p50 for row in beside if row.stream]) else None,
                None,
            ]
        )
    for row in peers:
        cells.append(
            [
                f"{row.system} {row.version}",
                row.way,
                row.w1.p50 * MS,
                row.loop.paired,
                row.ours.paired,
                row.w2.p50 * US,
                row.w2.p99 * US,
                row.calls.paired,
                row.stream.p50 * US if row.stream else None,
                row.streamed.paired if row.streamed else None,
            ]
        )
    return Table(
        name="peers",
        title=f"{PACKAGE} tasks and single calls, by others",
        note="W1 and W2 of each peer, in turns with the loop and Task Engine. The peers are measured one after the "
        "other, with two workers each. Times are medians, and ratios medians of the rounds' ratios. The rows of the "
        "loop and of Task Engine are medians over all peers' runs, which the idle processes of a peer may disturb. "
        "Peers without chunks of their own run bags: 50 calls in one task. No peer streams the values of a generator; "
        "the nearest is ipyparallel's `imap`, with a task for each value.",
        heads=[
            "system",
            "way",
            "W1 ms",
            "x loop",
            "x ours",
            "W2 µs",
            "p99",
            "W2 x ours",
            "stream µs a value",
            "stream x ours",
        ],
        rows=cells,
        bold=OURS,
    )


def page_part(peers: Peers, made: Table) -> str:
    """The part of the page."""
    lines = report.measured_on(peers.machine, peers.settings)
    lines.append(report.disturbance(peers.busy_before, peers.busy_after, peers.waited))
    lines += [f"Not measured: {name}: {why}" for name, why in peers.missing.items()]
    return page.provenance(peers.when, lines) + "\n" + page.table_text(made, COMMAND, "benchmarks")
