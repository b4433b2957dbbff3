"""Measures the memory and the processor time of an idle engine with the default settings."""

from __future__ import annotations

import time

import msgspec

from bench.engine import Engine
from bench.processes import busy_share, family, pss
from bench.table import Table

SETTLE_S = 1.0
MB = 2**20
PERCENT = 100


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """Name and memory (PSS, bytes) of each process, and the share of a core that all take together."""

    processes: list[tuple[str, int]]
    core: float

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return sum(size for _, size in self.processes)


def measure(seconds: float) -> Rest:
    """Watch an engine with the default settings for so long. Raises EngineFailed.

    To be measured before other engines and pools run: what they share with it would count for less.
    """
    with Engine() as engine:
        time.sleep(min(SETTLE_S, seconds))
        processes = family(engine.pid)
        core = busy_share(list(processes), seconds)
        return Rest(processes=sorted((name, pss(pid)) for pid, name in processes.items()), core=core)


def text(rest: Rest) -> str:
    """One line."""
    return f"At rest the default engine takes {rest.memory / MB:.0f} MB (PSS) and {rest.core * PERCENT:.2f} % of a core"


def table(rest: Rest) -> Table:
    """The memory process by process."""
    return Table(
        name="rest",
        title="At rest",
        note=f"An idle engine with the default settings: all its processes together use {rest.core * PERCENT:.2f} % of "
        "a core. Memory is PSS (proportional set size): a page that several processes share is divided among them. "
        "The benchmark's own processes share some, too.",
        heads=["process", "MB"],
        rows=[[name, size / MB] for name, size in [*rest.processes, ("all", rest.memory)]],
    )
