"""Measures the cost and the benefit of CHUNKING_SIZE."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.engine import Engine
from bench.figures import percentile, ratio, together
from bench.headline import MS
from bench.matrix.extent import Extent
from bench.matrix.loads import TASKS, in_process, mixed
from bench.ours import Ours
from bench.pools import Loop
from bench.quiet import Quiet
from bench.scenarios import Measure, in_turns, package_measure
from bench.schedule import makespan
from bench.span import Job, in_a_row, timed_package
from bench.system import CHUNK, PACKAGE, WORKERS
from bench.table import Cell, Table

IDEAL = "ideal"


def measure(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """W1, and the heavy-headed mix, at each chunk size in turns. Raises EngineFailed or WrongResult."""
    us = mixed(None, extent.share).us
    measures: dict[str, Measure] = {
        Loop.name: package_measure(Loop(), PACKAGE, extent.block),
        IDEAL: lambda: [makespan(in_process(us), WORKERS)],
    }
    with ExitStack() as stack:
        for size in extent.chunk_sizes:
            engine = stack.enter_context(Engine(**{**settings, "tasks": TASKS, "chunking_size": size}))
            ours = Ours(f"chunks of {size}", engine.address)
            stack.callback(ours.close)
            measures[f"tiny {size}"] = package_measure(ours, PACKAGE, extent.block)
            measures[f"mix {size}"] = _mix_measure(ours, us, extent)
        samples = in_turns(measures, extent.rounds, quiet)
    rows: list[Sequence[Cell]] = []
    for size in extent.chunk_sizes:
        tiny, mix = samples[f"tiny {size}"], samples[f"mix {size}"]
        rows.append(
            [
                size,
                percentile(together(tiny), 50) * MS,
                ratio(tiny, samples[Loop.name]).paired,
                ratio(tiny, samples[f"tiny {CHUNK}"]).paired,
                percentile(together(mix), 50) * MS,
                ratio(mix, samples[IDEAL]).paired,
            ]
        )
    return Table(
        name="chunks",
        title="Chunks of 1 to 500",
        note="W1 with tiny tasks, and the mix of the next table with its heavy tasks first, the latter beside the best "
        "possible schedule of its tasks. Each chunk costs time, and a large chunk cannot be shared among workers.",
        heads=["chunk size", "W1 ms", "x loop", f"x size {CHUNK}", "mix ms", "mix x ideal"],
        rows=rows,
    )


def _mix_measure(ours: Ours, us: list[float], extent: Extent) -> Measure:
    job = Job(lambda: ours.client.map("busy", us))
    return lambda: in_a_row(lambda: timed_package(ours.name, job, us), extent.long_block)
