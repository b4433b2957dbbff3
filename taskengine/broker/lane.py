"""A lane: its workers, the tasks that wait for them, and the batches being built. Pure."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from taskengine.broker.chunking import Run, spread
from taskengine.broker.lane_queue import LaneQueue, Line, Lines, Span
from taskengine.broker.package import Package
from taskengine.broker.tuning import BATCH_NS, BATCH_SLICES, SLICE_NS
from taskengine.protocol.layouts import IN_FLIGHT
from taskengine.protocol.messages import LaneStats, Priority

_load = attrgetter("load")


class Slice(NamedTuple):
    """Tasks of a run, from position `first` to `stop`, estimated to cost `cost` ns; or handed out again."""

    package: Package
    run: Run
    first: int
    stop: int
    cost: float
    is_again: bool = False

    def tasks(self) -> tuple[Package, int, int]:
        """Return the package, and which of its tasks: the first, and behind the last."""
        return self.package, self.first, self.stop

    def between(self, first: int, stop: int) -> Slice:
        """Return the part of the slice from one position to another."""
        return self._replace(first=first, stop=stop, cost=self.cost * (stop - first) / (self.stop - self.first))


def tasks_in(slices: Iterable[Slice]) -> int:
    """Return how many tasks the slices have."""
    return sum(slice.stop - slice.first for slice in slices)


class Batch(NamedTuple):
    """Slices, of so many tasks, that travel to `worker` in one message.

    After `slice_ns` ns it may hand the rest back, 0 for never.
    """

    worker: str
    number: int
    slices: list[Slice]
    slice_ns: int
    tasks: int


class LaneWorker:
    """A worker as the broker sees it: the batches that it holds, and how much work they are."""

    __slots__ = (
        "batches",
        "cancels",
        "early",
        "first",
        "is_excluded",
        "is_retired",
        "lane",
        "load",
        "missing",
        "name",
        "recalled",
        "since",
    )

    def __init__(self, name: str, lane: str, first: int, missing: Collection[str] = ()) -> None:
        self.name = name
        self.lane = lane
        self.missing = frozenset(missing)
        """Modules of its lane that the worker could not load."""
        self.load = 0.0
        self.cancels = False
        """Whether the worker can cancel tasks that run."""
        self.is_excluded = False
        self.is_retired = False
        """Whether the worker is asked to end; its death then blames no task."""
        self.batches: deque[list[Slice]] = deque()
        self.since = 0.0
        """When the oldest of them became that, in s, monotonic,"""
        self.early = 0
        """and how many of its tasks are answered already."""
        self.first = first
        """The number of the oldest batch; the others follow."""
        self.recalled = first - 1
        """Batches up to this number are to be handed back."""

    def room(self) -> bool:
        """Return whether the worker takes one more batch."""
        if self.is_excluded:
            return False
        return not self.batches or (len(self.batches) < IN_FLIGHT and self.load < 2 * BATCH_NS)

    def hold(self, slices: list[Slice], now: float) -> int:
        """Give the worker a batch at `now`; return its number."""
        if not self.batches:
            self.since = now
        self.batches.append(slices)
        return self.first + len(self.batches) - 1

    def numbers(self) -> Sequence[int]:
        """Return the numbers of the worker's batches, the oldest first."""
        return range(self.first, self.first + len(self.batches))

    def answered(self, number: int | None) -> list[Slice] | None:
        """Return the slices of a batch that the worker may answer now, None for another; it answers the oldest."""
        return self.batches[0] if number is None and self.batches else None

    def end(self, number: int | None, now: float) -> None:
        """Remove a batch that was answered, and has ended at `now`."""
        self.batches.popleft()
        self.since = now
        self.first += 1
        self.early = 0
        self.weigh()

    def recall(self) -> int:
        """Return the number of the last batch: all are to be handed back."""
        self.recalled = self.first + len(self.batches) - 1
        return self.recalled

    def is_handing_back(self) -> bool:
        """Return whether the worker still has batches that it was asked to hand back."""
        return bool(self.batches) and self.first <= self.recalled

    def has_patient_work(self) -> bool:
        """Return whether the worker has work that is not urgent and that it was not asked to hand back."""
        asked = max(0, self.recalled + 1 - self.first)
        rest = itertools.islice(self.batches, asked, None)
        return any(slice.package.priority != Priority.URGENT for batch in rest for slice in batch)

    def weigh(self) -> None:
        """Estimate again how much work the worker has."""
        self.load = sum(slice.cost for batch in self.batches for slice in batch) if self.batches else 0.0


class Lane:
    """A lane of `size` workers. A package that waits alone needs no turn.

    Others wait in `lines`, the most urgent first.

    A lane that `is_shared` has one worker and takes turns between clients. Each worker runs up to `concurrency` tasks
    at once.
    """

    def __init__(self, size: int, *, is_shared: bool = False, concurrency: int = 1) -> None:
        size *= concurrency
        self.concurrency = concurrency
        self.workers: list[LaneWorker] = []
        self.queued = 0
        """How many tasks wait."""
        self.postponed = 0
        """How many tasks are to run again, and do not wait here until then."""
        self.slice_ns = SLICE_NS if size > 1 and concurrency == 1 else 0
        self.lines: list[Line | Lines | LaneQueue]
        self._line_of: dict[int, Line | Lines | LaneQueue]
        if size > 1:
            self.lines = [LaneQueue() for _ in Priority]
            self._line_of = dict(zip(sorted(Priority, reverse=True), self.lines, strict=True))
        else:  # in the order of reception, of each client or of all; urgent spans go first
            urgent, other = (Lines(), Lines()) if is_shared else (Line(), Line())
            self.lines = [urgent, other]
            self._line_of = {priority: urgent if priority == Priority.URGENT else other for priority in Priority}
        self._alone: Span | None = None

    def add(self, span: Span) -> None:
        """Append a span to what waits."""
        self.queued += span.stop - span.first
        if self.next() is None:  # which forgets the last one that waited alone
            self._alone = span
        else:
            self.settle()
            self._line(span).add(span)

    def back(self, span: Span) -> None:
        """Put back a span that was handed out and did not run; it goes first."""
        self.queued += span.stop - span.first
        self.settle()
        self._line(span).back(span)

    def next(self) -> Span | None:
        """Return the span to hand out next, which has tasks left; None if nothing waits."""
        if self._alone is not None:
            if self._alone.first < self._alone.stop:
                return self._alone
            self._alone = None
        for line in self.lines:
            if line.waiting:
                span = line.first()
                if span is not None:
                    return span
        return None

    def crowded(self, span: Span) -> bool:
        """Return whether others than the span's owner wait for a turn."""
        return span is not self._alone and self._line(span).crowded()

    def charge(self, package: Package, cost: float) -> None:
        """Charge the package for work, in ns."""
        self._line_of[package.priority].charge(package, cost)

    def split(self, span: Span, at: int) -> None:
        """End the next span at position `at`, and begin another one there."""
        self.settle()
        self._line(span).split(span, at)

    def revoke(self, packages: Collection[Package]) -> list[Span]:
        """Remove and return everything that waits of these packages."""
        self.settle()
        gone = [span for line in self.lines for span in line.revoke(packages) if span.first < span.stop]
        self.queued -= sum(span.stop - span.first for span in gone)
        return gone

    def clear(self) -> list[Span]:
        """Remove and return everything that waits."""
        self.queued = 0
        self.settle()
        return [span for line in self.lines for span in line.clear() if span.first < span.stop]

    def is_held_up(self, span: Span) -> bool:
        """Return whether an earlier span is about to come back, in a lane that promises the order of reception."""
        if self.slice_ns or span.package.priority == Priority.URGENT:
            return False
        return any(worker.is_handing_back() for worker in self.workers)

    def settle(self) -> None:
        """Move the package that waits alone into its line, because another one comes."""
        span, self._alone = self._alone, None
        if span is not None and span.first < span.stop:
            self._line(span).add(span)

    def stats(self, name: str, size: int, workers: Sequence[LaneWorker], queued: int) -> LaneStats:
        """Return the lane's counters: configured `size`, these workers, and `queued` tasks."""
        busy = [worker for worker in workers if worker.batches]
        running = sum(slice.stop - slice.first for worker in busy for batch in worker.batches for slice in batch)
        running -= sum(worker.early for worker in busy)
        online = sum(not worker.is_excluded for worker in workers)
        return LaneStats(name, size, online, len(busy), queued, running)

    def _line(self, span: Span) -> Line | Lines | LaneQueue:
        return self._line_of[span.package.priority]


class BatchBuilder:
    """The batches of one dispatch of a lane while they fill; `free` are the workers with room."""

    def __init__(self, workers: list[LaneWorker]) -> None:
        self.free = workers
        self.slices: dict[LaneWorker, list[Slice]] = {}
        self._fresh = dict.fromkeys(workers, 0.0)

    def give(self, worker: LaneWorker, span: Span, chunks: int, cost: float) -> None:
        """Take so many chunks of `cost` ns each from the span for the worker."""
        end, total = span.end(chunks), chunks * cost
        slices = self.slices.setdefault(worker, [])
        slices.append(Slice(span.package, span.run, span.first, end, total, span.is_again))
        span.first = end
        worker.load += total
        self._fresh[worker] += total
        if self._fresh[worker] >= BATCH_NS or len(slices) >= BATCH_SLICES:
            self.free.remove(worker)

    def give_one(self, span: Span, cost: float) -> int:
        """Give one heavy chunk to the least loaded worker, unless its batch holds work that would wait behind it.

        Return how many chunks were given.
        """
        worker = min(self.free, key=_load)
        if worker in self.slices:
            self.free.remove(worker)
            return 0
        self.give(worker, span, 1, cost)
        return 1

    def give_many(self, span: Span, chunks: int, cost: float) -> int:
        """Spread so many light chunks over the workers; return for how many there was room."""
        if chunks == 1:
            self.give(min(self.free, key=_load), span, 1, cost)
            return 1
        workers = sorted(self.free, key=_load)
        rooms = [BATCH_NS - self._fresh[worker] for worker in workers]
        counts = spread(chunks, cost, [worker.load for worker in workers], rooms)
        for worker, count in zip(workers, counts, strict=True):
            if count:
                self.give(worker, span, count, cost)
        return sum(counts)
