"""The ideal that spreading is held against: how long a package takes at best when nothing costs but its tasks. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from taskengine.broker.chunking import cut


def makespan(durations: Iterable[float], workers: int) -> float:
    """When the last ends where each in turn goes to the worker that is free first (list scheduling)."""
    free = [0.0] * workers
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def chunks(durations: Sequence[float], size: int, workers: int) -> list[float]:
    """The durations of a package's chunks as the engine cuts it for so many workers at CHUNKING_SIZE `size`."""
    made = cut(len(durations), size, workers)
    return [sum(durations[made.start(number) : made.start(number + 1)]) for number in range(made.chunks)]
