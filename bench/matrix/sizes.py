"""How the cost of a task, and the router's memory, grow with the package."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench import processes
from bench.engine import Engine
from bench.figures import Rounds, percentile, ratio, together
from bench.matrix.extent import Extent
from bench.ours import Ours
from bench.pools import POOL, Loop, Pool
from bench.processes import Peak
from bench.quiet import Quiet
from bench.report import OURS, US
from bench.scenarios import Measure, in_turns, package_measure
from bench.span import RESULT, timed_package
from bench.system import ARGUMENTS, PACKAGE, System
from bench.table import Cell, Table
from taskengine import _fastpath

MB = 2**20
TIMES = 3
SETTLE_S = 0.2


def measure(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """W1 with packages of each size, all sizes and systems in turns. Raises EngineFailed or WrongResult."""
    with ExitStack() as stack:
        pool = Pool()
        stack.callback(pool.close)
        engine = stack.enter_context(Engine(**settings))
        ours = Ours(OURS, engine.address)
        stack.callback(ours.close)
        systems: list[System] = [Loop(), ours, pool]
        measures: dict[str, Measure] = {}
        for tasks in extent.sizes:
            for system in systems:
                measures[_name(system.name, tasks)] = package_measure(system, tasks, extent.block)
        samples = in_turns(measures, extent.rounds, quiet)
    return Table(
        name="sizes",
        title="Packages of 1 to 10^6 tasks",
        note="The time of W1 for each task, in packages of each size, as medians. x loop and x Pool are medians of the "
        f"rounds' ratios. x {PACKAGE} is the engine's time for a task, divided by that in a package of {PACKAGE} in "
        "the same round.",
        heads=[
            "tasks",
            "loop µs a task",
            "Task Engine µs a task",
            "Pool µs a task",
            "x loop",
            "x Pool",
            f"x {PACKAGE}",
        ],
        rows=[_row(samples, tasks) for tasks in extent.sizes],
    )


def _name(system: str, tasks: int) -> str:
    return f"{system} {tasks}"


def _row(samples: Rounds, tasks: int) -> list[Cell]:
    loop, ours, pool = (samples[_name(system, tasks)] for system in (Loop.name, OURS, POOL))
    compared = ratio(ours, samples[_name(OURS, PACKAGE)]).paired * PACKAGE / tasks
    costs = [percentile(together(blocks), 50) * US / tasks for blocks in (loop, ours, pool)]
    return [tasks, *costs, ratio(ours, loop).paired, ratio(ours, pool).paired, compared]


def measure_memory(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """The memory of a new engine with the largest package, a few times over. Raises EngineFailed or WrongResult."""
    tasks = max(extent.sizes)
    index, body = _fastpath.pack_map([[argument] * tasks for argument in ARGUMENTS])
    request, reply = len(index) + len(body), len(_fastpath.encode(RESULT)) * tasks
    rows: list[Sequence[Cell]] = []
    with Engine(**settings) as engine:
        ours = Ours(OURS, engine.address)
        try:
            small, large = ours.package(PACKAGE), ours.package(tasks)
            timed_package(OURS, small, [RESULT] * PACKAGE)
            family = list(processes.family(engine.pid))
            router = ours.client.info().pid
            time.sleep(SETTLE_S)
            before, rest = processes.resident(router), sum(map(processes.pss, family))
            quiet.wait()
            for number in range(1, TIMES + 1):
                processes.forget_peak(router)
                with Peak(family) as peak:
                    timed_package(OURS, large, [RESULT] * tasks)
                grown = processes.peak(router) - before
                # the engine's rest is the same in each row
                sizes = [request, reply, grown, rest, max(peak.bytes, rest)]
                rows.append([str(number), *(size / MB for size in sizes), grown / (request + reply)])
        finally:
            ours.close()
    return Table(
        name="memory",
        title=f"Memory at a package of {tasks} tasks",
        note=f"A new engine gets {TIMES} packages of {tasks} tasks, one after the other. The router's growth is its "
        "highest resident memory, minus that before the first package. The engine's peak is the highest sum of the PSS "
        "of its processes, which is read every 10 ms. The last column divides the growth by the bytes in flight: the "
        "bodies of the request and of the reply.",
        heads=[
            "package",
            "request MB",
            "reply MB",
            "router's growth MB",
            "engine at rest MB",
            "engine's peak MB",
            "growth x in flight",
        ],
        rows=rows,
    )
