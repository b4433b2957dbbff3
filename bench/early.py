"""W5: results as they come. When the first is there, and how near to the ideal schedule of its tasks a load comes.

Three loads: naps that are submitted at once, a call beside a long nap, and the heavy-headed mix of `matrix.loads` as
one package, at several sizes of chunks. The first two are submitted one by one, each call with a future of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from typing import Any

import msgspec

from bench.busy import busy
from bench.engine import Engine
from bench.figures import Ratio, Rounds, Summary, ratio, summary, together
from bench.headline import MS
from bench.matrix.loads import HEAVY, HEAVY_US, LIGHT_US, TASKS, in_process, mixed
from bench.ours import NAME, TIMEOUT_S
from bench.pools import EXECUTOR, POOL, Pool
from bench.quiet import Quiet
from bench.scenarios import Measure, Plan, in_turns
from bench.schedule import makespan
from bench.span import Job, timed_package
from bench.system import CHUNK, PACKAGE, WORKERS
from bench.table import Cell, Table, text
from taskengine import Client
from taskengine.tasks import task_sleep

NAPPERS = 5
NAPS = [0.02 * number for number in range(20)]
NAPS_LOAD = f"{len(NAPS)} sleeps of 0 to {NAPS[-1]:g} s, {NAPPERS} workers"
LONG_S = 1.0
BESIDE_LOAD = f"a quick call beside sleep({LONG_S:g}), {NAPPERS} workers"
SIZES = (10, 50, 500)
IDEAL = "ideal"
Submit = Callable[[float], Future[Any]]
"""Submits a sleep of so many s."""


class Early(msgspec.Struct, frozen=True, kw_only=True):
    """A load as a system worked it off: when its first result was there, and when all were.

    `ideal` is the median of the rounds' ideal schedules by task, in s, and `over` how many times those `whole` is.
    """

    load: str
    system: str
    first: Summary | None = None
    whole: Summary | None = None
    ideal: float | None = None
    over: Ratio | None = None


def measure(plan: Plan, quiet: Quiet) -> list[Early]:
    """Play all loads. Raises EngineFailed, WrongResult."""
    with ExitStack() as stack:
        engine = stack.enter_context(Engine(task_workers=NAPPERS, enable_stdout=False))
        client = stack.enter_context(Client(engine.address, timeout=TIMEOUT_S))
        executor = stack.enter_context(ProcessPoolExecutor(NAPPERS, mp_context=get_context("spawn")))
        submits: dict[str, Submit] = {
            NAME: lambda seconds: client.submit("task_sleep", seconds),
            EXECUTOR: lambda seconds: executor.submit(task_sleep, seconds),
        }
        for submit in submits.values():
            wait([submit(0.01) for _ in range(2 * NAPPERS)])
        naps = _naps(submits, plan, quiet)
        beside = _beside(submits, plan, quiet)
    return [*naps, *beside, *_mix(plan, quiet)]


def timed_naps(submit: Submit) -> tuple[float, float]:
    """Submit all naps; return after how many s the first result was there, and the last."""
    ends: list[float] = []
    start = time.perf_counter()
    futures = [submit(seconds) for seconds in NAPS]
    for future in futures:
        future.add_done_callback(lambda _: ends.append(time.perf_counter() - start))
    for future in futures:
        future.result(TIMEOUT_S)
    return min(ends), max(ends)


def timed_beside(submit: Submit) -> float:
    """Return how long a call that takes no time took beside a long one that was submitted just before."""
    long = submit(LONG_S)
    start = time.perf_counter()
    submit(0.0).result(TIMEOUT_S)
    took = time.perf_counter() - start
    long.result(TIMEOUT_S)
    return took


def _naps(submits: dict[str, Submit], plan: Plan, quiet: Quiet) -> list[Early]:
    measures: dict[str, Measure] = {name: partial(_both, submit) for name, submit in submits.items()}
    both = in_turns(measures, plan.early_rounds, quiet)
    ideal = makespan(NAPS, NAPPERS)
    return [
        Early(
            load=NAPS_LOAD,
            system=name,
            first=summary([first for first, _ in rounds]),
            whole=summary([whole for _, whole in rounds]),
            ideal=ideal,
            over=ratio([[whole] for _, whole in rounds], [[ideal]] * len(rounds)),
        )
        for name, rounds in both.items()
    ]


def _beside(submits: dict[str, Submit], plan: Plan, quiet: Quiet) -> list[Early]:
    measures = {name: partial(_one, partial(timed_beside, submit)) for name, submit in submits.items()}
    took = in_turns(measures, plan.early_rounds, quiet)
    return [Early(load=BESIDE_LOAD, system=name, first=summary(together(rounds))) for name, rounds in took.items()]


def _mix(plan: Plan, quiet: Quiet) -> list[Early]:
    us = mixed(None, 1).us
    calls = [(duration,) for duration in us]
    with ExitStack() as stack:
        pool = Pool()
        stack.callback(pool.close)
        runs: dict[str, Callable[[], Any]] = {}
        for size in SIZES:
            engine = stack.enter_context(Engine(tasks=TASKS, chunking_size=size, enable_stdout=False))
            client = stack.enter_context(Client(engine.address, timeout=TIMEOUT_S))
            runs[f"{NAME}, chunks of {size}"] = partial(client.map, "busy", us)
        runs[f"{POOL}, chunks of {CHUNK}"] = partial(pool.pool.starmap, busy, calls, chunksize=CHUNK)
        measures: dict[str, Measure] = {
            name: partial(_one, partial(timed_package, name, Job(run), us)) for name, run in runs.items()
        }
        measures[IDEAL] = lambda: [makespan(in_process(us), WORKERS)]
        took = in_turns(measures, plan.early_rounds, quiet)
    return _against_ideal(f"{HEAVY} tasks of {HEAVY_US / MS:g} ms, {PACKAGE - HEAVY} of {LIGHT_US:g} µs", took)


def _both(submit: Submit) -> list[float]:
    return list(timed_naps(submit))


def _one(measure: Callable[[], float]) -> list[float]:
    return [measure()]


def _against_ideal(load: str, took: Rounds) -> list[Early]:
    ideal = summary(together(took[IDEAL])).p50
    return [
        Early(
            load=f"{load}, {WORKERS} workers",
            system=name,
            whole=summary(together(rounds)),
            ideal=ideal,
            over=ratio(rounds, took[IDEAL]),
        )
        for name, rounds in took.items()
        if name != IDEAL
    ]


def table(found: Sequence[Early]) -> Table:
    """Return the table."""
    return Table(
        name="w5",
        title="W5: results as they come",
        note="The sleeps and the quick call are submitted at once, each with a future of its own, at the default "
        "settings but for the workers; `first` is when the first future had its result, of the quick call its own. The "
        "mix is one package of busy tasks, the heavy ones first. The ideal schedule gives each task in turn to the "
        "worker that is free first, and costs nothing else; of the mix it is computed from what each task took in a "
        "loop in the same round. x ideal is the median of the rounds' ratios.",
        heads=["load", "system", "first ms p50", "first ms max", "all ms p50", "ideal ms", "x ideal", "quartiles"],
        rows=[_cells(row) for row in found],
    )


def _cells(row: Early) -> list[Cell]:
    over = row.over
    return [
        row.load,
        row.system,
        row.first.p50 * MS if row.first else None,
        row.first.max * MS if row.first else None,
        row.whole.p50 * MS if row.whole else None,
        row.ideal * MS if row.ideal else None,
        over.paired if over else None,
        f"{text(over.low)}-{text(over.high)}" if over else None,
    ]
