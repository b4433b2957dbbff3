"""Cuts packages into chunks and spreads chunks over workers. Pure arithmetic."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

_first = attrgetter("first")


class Cut(NamedTuple):
    """Tasks from position `first` on in `chunks` chunks of `size` each, of which the first `larger` have one more."""

    chunks: int
    size: int
    larger: int
    first: int = 0

    def start(self, number: int) -> int:
        """Return where chunk `number`, from 0, begins; for `number` = `chunks`, where the last one ends."""
        return self.first + number * self.size + min(number, self.larger)

    def number(self, position: int) -> int:
        """Return the number, from 0, of the chunk that holds the task at a position."""
        _, size, larger, first = self
        task, boundary = position - first, larger * (size + 1)
        if task < boundary:
            return task // (size + 1)
        return larger + (task - boundary) // size


_ONE = Cut(1, 1, 0)


def cut(tasks: int, size: int | None, workers: int, first: int = 0) -> Cut:
    """Cut `tasks` tasks, the first of which is at position `first`, for `workers` workers.

    `size` is CHUNKING_SIZE, the most tasks in a chunk, or None where chunking is off and the package stays whole.
    The number of chunks is rounded up to a multiple of the workers, but there is never an empty chunk, and sizes
    differ by at most one.
    """
    if tasks == 1 and not first:
        return _ONE
    if size is None or tasks <= 1:
        return Cut(min(tasks, 1), tasks, 0, first)
    chunks = -(-tasks // size)
    chunks = min(-(-chunks // workers) * workers, tasks)
    return Cut(chunks, *divmod(tasks, chunks), first)


class Run(NamedTuple):
    """Neighbouring tasks of one lane, from position `first` to `stop`, in chunks whose numbers begin at `part`."""

    lane: str
    first: int
    stop: int
    part: int
    cut: Cut


class Chunks:
    """The chunks of a package, in runs of one lane each."""

    __slots__ = ("count", "runs")

    def __init__(
        self, lanes: Iterable[tuple[str, int]] = (), size: int | None = None, workers: Mapping[str, int] | None = None
    ) -> None:
        """Cut neighbouring tasks, `lanes` as (lane, number of tasks), for lanes of so many `workers`; see `cut`."""
        runs: list[Run] = []
        first, part = 0, 1
        for lane, tasks in lanes:
            pieces = cut(tasks, size, workers.get(lane, 1) if workers else 1, first)
            runs.append(Run(lane, first, first + tasks, part, pieces))
            first, part = first + tasks, part + pieces.chunks
        self.runs = tuple(runs)
        self.count = part - 1

    def between(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the chunks that hold the tasks from `first` to `stop`: (part, first, stop), no task beyond these."""
        while first < stop:
            run = self._run_of(first)
            number = run.cut.number(first)
            end = min(run.cut.start(number + 1), stop)
            yield run.part + number, first, end
            first = end

    def ended(self, first: int, stop: int) -> range:
        """Return the parts of the chunks whose last tasks are among the tasks from `first` to `stop`."""
        return range(self._begun(first), self._begun(stop))

    def _begun(self, position: int) -> int:
        """Return the part that holds the task at a position, or would follow the last one."""
        if position >= self.runs[-1].stop:
            return self.count + 1
        run = self._run_of(position)
        return run.part + run.cut.number(position)

    def _run_of(self, position: int) -> Run:
        return self.runs[bisect_right(self.runs, position, key=_first) - 1]


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
