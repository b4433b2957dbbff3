"""Measures the cost of encryption, where the engine has it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.engine import Engine
from bench.figures import percentile, ratio, together
from bench.headline import MS
from bench.matrix.extent import Extent
from bench.ours import Ours
from bench.pools import Loop
from bench.quiet import Quiet
from bench.report import CURVE, OURS, US
from bench.scenarios import Plan, w1, w2
from bench.span import Block
from bench.system import System
from bench.table import Cell, Table

CALLS = Block(10, 100)


def measure(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """W1 and W2 with and without, in turns. Raises EngineFailed or WrongResult."""
    plan = Plan(rounds=extent.rounds, block=extent.block, call_rounds=extent.rounds, call_block=CALLS)
    with ExitStack() as stack:
        systems: list[System] = [Loop()]
        for name, curve in ((OURS, "off"), (CURVE, "on")):
            engine = stack.enter_context(Engine(**{**settings, "curve": curve}))
            ours = Ours(name, engine.address, engine.keys)
            stack.callback(ours.close)
            systems.append(ours)
        packages, calls = w1(systems, plan, quiet), w2(systems, plan, quiet)
    rows: list[Sequence[Cell]] = [
        [
            name,
            percentile(together(packages[name]), 50) * MS,
            ratio(packages[name], packages[Loop.name]).paired,
            ratio(packages[name], packages[OURS]).paired,
            percentile(together(calls[name]), 50) * US,
            ratio(calls[name], calls[OURS]).paired,
        ]
        for name in (OURS, CURVE)
    ]
    return Table(
        name="curve",
        title="CURVE off and on",
        note="W1 and W2 without and with encryption, in turns.",
        heads=["system", "W1 ms", "x loop", "x off", "W2 µs", "x off"],
        rows=rows,
    )
