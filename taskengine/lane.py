"""A lane: its workers, what waits for them, and how their batches fill. Pure."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import NamedTuple

from taskengine.chunking import spread
from taskengine.messages import LaneStats, Priority
from taskengine.package import Package, Run, Section
from taskengine.turns import Line, Lines, Span, Turns
from taskengine.wire import BATCH_NS, BATCH_SLICES, IN_FLIGHT, SLICE_NS

_load = attrgetter("load")


class Slice(NamedTuple):
    """Tasks of a run, from position `first` to `stop`, estimated to cost `cost` ns."""

    package: Package
    run: Run
    first: int
    stop: int
    cost: float

    def tasks(self) -> tuple[Package, int, int]:
        """The package, and which of its tasks: the first, and behind the last."""
        return self.package, self.first, self.stop

    def section(self) -> Section:
        """As it goes into a batch."""
        return self.package.section(self.run, self.first, self.stop)


class Batch(NamedTuple):
    """Slices that travel to `worker` in one message; after `slice_ns` ns it may hand back what is left, 0 for never."""

    worker: str
    number: int
    slices: list[Slice]
    slice_ns: int


class Worker:
    """What a worker has to do, and how much that is."""

    __slots__ = ("batches", "first", "is_condemned", "is_retired", "lane", "load", "missing", "name", "recalled")

    def __init__(self, name: str, lane: str, first: int, missing: Collection[str] = ()) -> None:
        self.name = name
        self.lane = lane
        self.missing = frozenset(missing)
        """Modules of its lane that it could not load."""
        self.load = 0.0
        self.is_condemned = False
        self.is_retired = False
        """It is to end of itself, and its death is none of which anything is to be feared."""
        self.batches: deque[list[Slice]] = deque()
        self.first = first
        """The number of the oldest batch; the others have the next."""
        self.recalled = first - 1
        """Batches up to this number are to be handed back."""

    def room(self) -> bool:
        """It takes one more batch."""
        if self.is_condemned:
            return False
        return not self.batches or (len(self.batches) < IN_FLIGHT and self.load < 2 * BATCH_NS)

    def end_oldest(self) -> list[Slice]:
        """The slices of the oldest batch, which it has no more."""
        slices = self.batches.popleft()
        self.first += 1
        self.weigh()
        return slices

    def recall(self) -> int:
        """The number of the last batch: all are to be handed back."""
        self.recalled = self.first + len(self.batches) - 1
        return self.recalled

    def is_handing_back(self) -> bool:
        """Something that it was asked for is still there."""
        return bool(self.batches) and self.first <= self.recalled

    def has_patient_work(self) -> bool:
        """It has what is not urgent, and has not been asked for it."""
        asked = max(0, self.recalled + 1 - self.first)
        rest = itertools.islice(self.batches, asked, None)
        return any(slice.package.priority != Priority.URGENT for batch in rest for slice in batch)

    def weigh(self) -> None:
        """Estimate anew what it has."""
        self.load = sum(slice.cost for batch in self.batches for slice in batch)


class Lane:
    """A lane of `size` workers. What waits alone needs no turn; others wait in `lines`, the most urgent first.

    A lane that `is_shared` has one worker and takes turns between clients.
    """

    def __init__(self, size: int, *, is_shared: bool = False) -> None:
        self.workers: list[Worker] = []
        self.queued = 0
        """Tasks that wait."""
        self.slice_ns = SLICE_NS if size > 1 else 0
        self.lines: list[Line | Lines | Turns]
        self._line_of: dict[int, Line | Lines | Turns]
        if size > 1:
            self.lines = [Turns() for _ in Priority]
            self._line_of = dict(zip(sorted(Priority, reverse=True), self.lines, strict=True))
        else:  # in the order of reception, of each client or of all, but for what is urgent
            urgent, other = (Lines(), Lines()) if is_shared else (Line(), Line())
            self.lines = [urgent, other]
            self._line_of = {priority: urgent if priority == Priority.URGENT else other for priority in Priority}
        self._alone: Span | None = None

    def add(self, span: Span) -> None:
        """Behind what waits."""
        self.queued += span.stop - span.first
        if self._alone is None and self.next() is None:
            self._alone = span
        else:
            self.settle()
            self._line(span).add(span)

    def back(self, span: Span) -> None:
        """What was handed out and came back goes first."""
        self.queued += span.stop - span.first
        self.settle()
        self._line(span).back(span)

    def next(self) -> Span | None:
        """What is to be handed out next; it has tasks left."""
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
        """Somebody waits for a turn beside the owner of the span."""
        return span is not self._alone and self._line(span).crowded()

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""
        self._line_of[package.priority].charge(package, cost)

    def part(self, span: Span, at: int) -> None:
        """What is next ends at position `at`, and another span begins."""
        self.settle()
        self._line(span).part(span, at)

    def revoke(self, packages: Collection[Package]) -> list[Span]:
        """Take out all that waits of these packages."""
        self.settle()
        gone = [span for line in self.lines for span in line.revoke(packages) if span.first < span.stop]
        self.queued -= sum(span.stop - span.first for span in gone)
        return gone

    def clear(self) -> list[Span]:
        """Take out all that waits."""
        self.queued = 0
        self.settle()
        return [span for line in self.lines for span in line.clear() if span.first < span.stop]

    def is_held_up(self, span: Span) -> bool:
        """Something that was received before the span is about to come back, and the order is promised."""
        if self.slice_ns or span.package.priority == Priority.URGENT:
            return False
        return any(worker.is_handing_back() for worker in self.workers)

    def settle(self) -> None:
        """What waits alone takes its place in line, since somebody comes."""
        span, self._alone = self._alone, None
        if span is not None and span.first < span.stop:
            self._line(span).add(span)

    def stats(self, name: str, size: int, workers: Sequence[Worker], queued: int) -> LaneStats:
        """What is to be seen of it, whose size is configured to be `size`, with these workers."""
        busy = [worker for worker in workers if worker.batches]
        running = sum(slice.stop - slice.first for worker in busy for batch in worker.batches for slice in batch)
        online = sum(not worker.is_condemned for worker in workers)
        return LaneStats(name, size, online, len(busy), queued, running)

    def _line(self, span: Span) -> Line | Lines | Turns:
        return self._line_of[span.package.priority]


class Filling:
    """The batches of one dispatch of a lane, as they fill; `free` are the workers that take more."""

    def __init__(self, workers: list[Worker]) -> None:
        self.free = workers
        self.slices: dict[Worker, list[Slice]] = {}
        self._fresh = dict.fromkeys(workers, 0.0)

    def give(self, worker: Worker, span: Span, chunks: int, cost: float) -> None:
        """Take so many chunks of `cost` ns each from the span."""
        end, total = span.end(chunks), chunks * cost
        slices = self.slices.setdefault(worker, [])
        slices.append(Slice(span.package, span.run, span.first, end, total))
        span.first = end
        worker.load += total
        self._fresh[worker] += total
        if self._fresh[worker] >= BATCH_NS or len(slices) >= BATCH_SLICES:
            self.free.remove(worker)

    def give_one(self, span: Span, cost: float) -> int:
        """Give one heavy chunk to the least loaded, unless something is in its batch that would wait; how many."""
        worker = min(self.free, key=_load)
        if worker in self.slices:
            self.free.remove(worker)
            return 0
        self.give(worker, span, 1, cost)
        return 1

    def give_many(self, span: Span, chunks: int, cost: float) -> int:
        """Spread so many light chunks over the workers; how many there was room for."""
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
