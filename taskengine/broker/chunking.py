"""Cuts packages into chunks and spreads chunks over workers. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Cut(NamedTuple):
    """Tasks in `chunks` chunks of `size` each, of which the first `larger` have one more."""

    chunks: int
    size: int
    larger: int

    def start(self, number: int) -> int:
        """Return the first task of chunk `number`, from 0; for `number` = `chunks`, the end of the last one."""
        return number * self.size + min(number, self.larger)

    def number(self, task: int) -> int:
        """Return the number, from 0, of the chunk that holds the task."""
        boundary = self.larger * (self.size + 1)
        if task < boundary:
            return task // (self.size + 1)
        return self.larger + (task - boundary) // self.size


def cut(tasks: int, size: int | None, workers: int) -> Cut:
    """Cut a package of `tasks` tasks for `workers` workers.

    `size` is CHUNKING_SIZE, the most tasks in a chunk, or None where chunking is off and the package stays whole.
    The number of chunks is rounded up to a multiple of the workers, but there is never an empty chunk, and sizes
    differ by at most one.
    """
    if size is None or tasks <= 1:
        return Cut(min(tasks, 1), tasks, 0)
    chunks = -(-tasks // size)
    chunks = min(-(-chunks // workers) * workers, tasks)
    return Cut(chunks, *divmod(tasks, chunks))


def spread(chunks: int, cost: float, loads: Sequence[float], rooms: Sequence[float]) -> list[int]:
    """Return how many of `chunks` chunks go to each worker, as if each chunk went to the least loaded worker in turn.

    A chunk costs `cost`. A worker with `loads` before it takes chunks until they fill its `rooms`; the last one may
    pass it.
    """
    most = [math.ceil(room / cost) for room in rooms]
    counts = [0] * len(loads)
    left = min(chunks, sum(most))
    if loads.count(loads[0]) == len(loads) and left == chunks <= min(most):  # the usual case: no worker is busy
        share, more = divmod(chunks, len(loads))
        return [share + (worker < more) for worker in range(len(loads))]
    while left:
        active = [worker for worker, count in enumerate(counts) if count < most[worker]]
        heights = {worker: loads[worker] + counts[worker] * cost for worker in active}
        lowest = min(active, key=heights.__getitem__)
        level = _level([heights[worker] for worker in active], left * cost)
        given = 0
        for worker in active:
            more = min(int((level - heights[worker]) / cost), most[worker] - counts[worker], left - given)
            if more > 0:
                counts[worker] += more
                given += more
        if not given:
            counts[lowest] += 1
            given = 1
        left -= given
    return counts


def _level(heights: Sequence[float], poured: float) -> float:
    """Return how high the level rises when `poured` is poured into connected vessels that are filled to `heights`."""
    total, level = poured, math.inf
    for number, height in enumerate(sorted(heights), 1):
        if height >= level:
            break
        total += height
        level = total / number
    return level
