"""How a package goes with more workers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.engine import Engine, free_ports
from bench.figures import percentile, ratio, together
from bench.headline import MS
from bench.matrix.extent import Extent
from bench.ours import Ours
from bench.pools import Loop
from bench.quiet import Quiet
from bench.scenarios import Measure, in_turns, package_measure
from bench.schedule import chunks, makespan
from bench.span import Job, in_a_row, timed_package
from bench.system import CHUNK
from bench.table import Cell, Table
from taskengine.tasks import task_sleep

SLEEPS = 800
SLEEP_S = 0.001


def measure(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """W1, and tasks that sleep, with each number of workers in turns. Raises EngineFailed or WrongResult."""
    sleeps = SLEEPS // extent.share
    slept = _real_sleep(sleeps // 10)
    measures: dict[str, Measure] = {}
    with ExitStack() as stack:
        measures[Loop.name] = package_measure(Loop(), 4000, extent.block)
        for workers in extent.workers:
            (data,) = free_ports(1)
            changes = {"task_workers": workers, "starting_port": data - workers}
            engine = stack.enter_context(Engine(**{**settings, **changes}))
            ours = Ours(f"{workers} workers", engine.address)
            stack.callback(ours.close)
            measures[f"tiny {workers}"] = package_measure(ours, 4000, extent.block)
            measures[f"sleep {workers}"] = _sleep_measure(ours, sleeps, extent)
        samples = in_turns(measures, extent.rounds, quiet)
    rows: list[Sequence[Cell]] = []
    for workers in extent.workers:
        tiny, sleeping = samples[f"tiny {workers}"], percentile(together(samples[f"sleep {workers}"]), 50)
        ideal = makespan(chunks([slept] * sleeps, CHUNK, workers), workers)
        first = samples[f"tiny {extent.workers[0]}"]
        rows.append(
            [
                workers,
                percentile(together(tiny), 50) * MS,
                ratio(tiny, samples[Loop.name]).paired,
                ratio(tiny, first).paired,
                sleeping * MS,
                ideal * MS,
                sleeping / ideal,
            ]
        )
    return Table(
        name="workers",
        title="1 to 8 workers",
        note=f"W1 with tiny tasks; and {sleeps} tasks that sleep {SLEEP_S * MS:g} ms and need no core, beside the "
        f"ideal schedule of their chunks, for which a sleep takes {slept * MS:.2f} ms, as measured. More workers "
        "than cores can only help tasks that wait.",
        heads=["workers", "W1 ms", "x loop", "x one worker", "sleeping ms", "ideal ms", "x ideal"],
        rows=rows,
    )


def _sleep_measure(ours: Ours, sleeps: int, extent: Extent) -> Measure:
    seconds = [SLEEP_S] * sleeps
    job = Job(lambda: ours.client.map("task_sleep", seconds))
    return lambda: in_a_row(lambda: timed_package(ours.name, job, seconds), extent.long_block)


def _real_sleep(times: int) -> float:
    """Return how long a task that sleeps really takes, in s: the system wakes it late."""
    job = Job(lambda: [task_sleep(SLEEP_S) for _ in range(times)])
    return timed_package("sleep", job, [SLEEP_S] * times) / times
