"""Tasks that take time: how near to the ideal schedule a package comes, and how the mix matters."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bench.busy import busy
from bench.engine import Engine
from bench.figures import percentile
from bench.headline import MS
from bench.matrix.extent import Extent
from bench.ours import TIMEOUT_S
from bench.pools import Pool
from bench.quiet import Quiet
from bench.schedule import chunks, makespan
from bench.span import Block, Job, in_a_row, timed_package
from bench.system import CHUNK, PACKAGE, WORKERS
from bench.table import Cell, Table
from taskengine import Client

TASKS = "taskengine.tasks,bench.busy"
HEAVY, HEAVY_US, LIGHT_US = 40, 5000.0, 20.0
LONGEST_S = 1.0


class Load(NamedTuple):
    """A package of `busy` tasks of so many µs each."""

    name: str
    us: list[float]


class Against(NamedTuple):
    """One round: seconds of the package, of the pool, of the ideal schedules by task and by chunk."""

    ours: float
    pool: float
    by_task: float
    by_chunk: float


def even(us: float, share: int) -> Load:
    """As many equal tasks as make a package, or as take LONGEST_S in a row."""
    tasks = PACKAGE if us == 0 else min(PACKAGE, int(LONGEST_S / us * 1e6))
    return Load(f"{us:g} µs each", [float(us)] * (tasks // share))


def mixed(seed: int | None, share: int) -> Load:
    """A few heavy tasks and many light ones: the heavy ones first, or shuffled by `seed`."""
    us = [HEAVY_US] * (HEAVY // share) + [LIGHT_US] * ((PACKAGE - HEAVY) // share)
    if seed is not None:
        random.Random(seed).shuffle(us)
    return Load("heavy ones first" if seed is None else f"shuffled, {seed}", us)


def in_process(us: Sequence[float]) -> list[float]:
    """How long each task takes here, in a row, in s."""
    spans = []
    before = time.perf_counter()
    for duration in us:
        busy(duration)
        now = time.perf_counter()
        spans.append(now - before)
        before = now
    return spans


def measure(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """Each load against its ideal schedule. Raises EngineFailed or WrongResult."""
    loads = [*(even(us, extent.share) for us in extent.busy_us)]
    loads += [mixed(seed, extent.share) for seed in (None, 1, 2)]
    rows: list[Sequence[Cell]] = []
    with ExitStack() as stack:
        pool = Pool()
        stack.callback(pool.close)
        engine = stack.enter_context(Engine(**{**settings, "tasks": TASKS}))
        client = stack.enter_context(Client(engine.address, timeout=TIMEOUT_S))
        for load in loads:
            rounds = [_round(load, client, pool, extent.long_block, quiet) for _ in range(extent.rounds)]
            rows.append([load.name, len(load.us), *_cells(rounds)])
    return Table(
        name="loads",
        title="Tasks of 0 to 1000 µs, and a heavy-headed mix",
        note=f"Busy tasks, {WORKERS} workers, chunks of {CHUNK}. The mix is {HEAVY} tasks of {HEAVY_US / MS:g} ms and "
        f"{PACKAGE - HEAVY} of {LIGHT_US:g} µs. The ideal schedule gives each task, or each chunk, in turn to the "
        "worker that is free first, and costs nothing else. It is computed from the time that each task took in a loop "
        "in the same round. By chunk, heavy tasks that are neighbours wait for one another; the engine takes back what "
        "a busy worker has not begun.",
        heads=[
            "tasks",
            "number",
            "Task Engine ms",
            "Pool ms",
            "ideal by task ms",
            "ideal by chunk ms",
            "x ideal by task",
            "x ideal by chunk",
            "Pool x ideal by chunk",
        ],
        rows=rows,
    )


def _round(load: Load, client: Client, pool: Pool, block: Block, quiet: Quiet) -> Against:
    def seconds(job: Job) -> float:
        return percentile(in_a_row(lambda: timed_package(load.name, job, load.us), block), 50)

    calls = [(us,) for us in load.us]
    quiet.wait()
    durations = in_process(load.us)
    return Against(
        ours=seconds(Job(lambda: client.map("busy", load.us))),
        pool=seconds(Job(lambda: pool.pool.starmap(busy, calls, chunksize=CHUNK))),
        by_task=makespan(durations, WORKERS),
        by_chunk=makespan(chunks(durations, CHUNK, WORKERS), WORKERS),
    )


def _cells(rounds: Sequence[Against]) -> list[Cell]:
    def middle(values: Sequence[float]) -> float:
        return percentile(values, 50)

    return [
        middle([found.ours for found in rounds]) * MS,
        middle([found.pool for found in rounds]) * MS,
        middle([found.by_task for found in rounds]) * MS,
        middle([found.by_chunk for found in rounds]) * MS,
        middle([found.ours / found.by_task for found in rounds]),
        middle([found.ours / found.by_chunk for found in rounds]),
        middle([found.pool / found.by_chunk for found in rounds]),
    ]
