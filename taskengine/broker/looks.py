"""Results that are taken from the progress pages of workers at work, before their answers. Pure.

Theory of operation. A batch is answered when it ends, and a long task holds up the results of those before it. Where a
worker's oldest batch has tasks of a package whose client wants each result as it comes, the router looks at the
worker's progress page: LOOK_S after the batch became the oldest, and so on until all but its last task were seen, which
ends the batch. While nothing is found the looks become rarer, so that a long task costs fewer. What was taken `early`
is taken out of the answer that comes later, or out of the account of a worker that has died, so that each task is
answered once. It stays answered, whatever the worker says later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from taskengine._fastpath import FIRST_LOOK
from taskengine.broker.in_flight import InFlight
from taskengine.broker.lane import LaneWorker, Slice
from taskengine.broker.package import Package
from taskengine.broker.partials import PartialResults
from taskengine.broker.recovery import Answered
from taskengine.broker.tuning import LONGEST_LOOK_S, LOOK_S, LOOK_SHARE
from taskengine.broker.workers import Workers
from taskengine.protocol.layouts import MAY_RETRY

Cursor = tuple[int, int, int, int, int]
"""How far a progress page was read; see `_fastpath.ProgressPage.peek`."""
Piece = tuple[int, int, int, int, bytes | None]
"""Tasks that are finished: job, first, stop, how many failed, and their results, None where they are not wanted."""


class PageLook(NamedTuple):
    """The page of a worker is to be read from `cursor` on, for the results of these jobs."""

    worker: str
    number: int
    cursor: Cursor
    jobs: frozenset[int]


class Early:
    """The results that were taken early of a slice that begins at `first`: up to `stop`, of `size` bytes."""

    __slots__ = ("failed", "first", "size", "stop")

    def __init__(self, first: int) -> None:
        self.first = self.stop = first
        self.size = self.failed = 0


class SeenBatch:
    """The oldest batch of a worker, as far as it was seen."""

    def __init__(self, worker: LaneWorker, now: float) -> None:
        slices = worker.batches[0]
        self.number = worker.first
        self.cursor: Cursor = FIRST_LOOK
        self.look_at = now + LOOK_S
        self.looked_at = self.found_at = now
        """When it was looked at last, and when something was found last."""
        self.jobs = frozenset(
            slice.package.flight.job for slice in slices if isinstance(slice.package.results, PartialResults)
        )
        self._place = 0
        """The slice that was seen last,"""
        self._stop = slices[0].first if slices else 0
        """and where what was seen of it ends."""
        self.early: dict[tuple[int, int], Early] = {}
        """The results that were taken early of each slice, by its job and where it begins."""

    def look(self, now: float) -> None:
        """Note that it is looked at, and when that is due again if nothing is found."""
        self.looked_at = now
        self.look_at = now + min(max(LOOK_S, (now - self.found_at) / LOOK_SHARE), LONGEST_LOOK_S)

    def find(self, cursor: Cursor) -> None:
        """Note that this look has found something, up to `cursor`."""
        self.cursor, self.found_at, self.look_at = cursor, self.looked_at, self.looked_at + LOOK_S

    def has_more(self, slices: Sequence[Slice]) -> bool:
        """Return whether a result that is wanted may be there before the answer: the last task ends the batch."""
        ahead = slices[self._place :]
        if not any(slice.package.flight.job in self.jobs for slice in ahead):
            return False
        return sum(slice.stop - slice.first for slice in ahead) - (self._stop - ahead[0].first) > 1

    def match(self, slices: Sequence[Slice], piece: Piece) -> Slice | None:
        """Return the slice to which the next piece belongs, None where it belongs to none."""
        job, first, stop, _, _ = piece
        if self._place >= len(slices):
            return None
        slice = slices[self._place]
        if job != slice.package.flight.job or first != self._stop or not first < stop <= slice.stop:
            return None
        self._stop = stop
        if stop == slice.stop:
            self._place += 1
            self._stop = slices[self._place].first if self._place < len(slices) else 0
        return slice

    def unseen(self, slices: Sequence[Slice]) -> list[Slice]:
        """Return the slices without the tasks that were answered early."""
        rest: list[Slice] = []
        for slice in slices:
            first, job = slice.first, slice.package.flight.job
            for (early_job, _), early in self.early.items():
                if early_job == job and early.first <= first < early.stop:
                    first = early.stop
            if first < slice.stop:
                rest.append(slice._replace(first=first) if first > slice.first else slice)
        return rest


class Looks:
    """Decides whose page is to be read, and takes what was found there."""

    def __init__(self, workers: Workers, in_flight: InFlight) -> None:
        self._workers = workers
        self._in_flight = in_flight
        self._seen: dict[str, SeenBatch] = {}
        self.is_watching = False
        """Whether a worker may have finished tasks whose results are wanted before its answer;"""
        self.next_at = math.inf
        """when the next of those looks is due."""

    @property
    def are_wanted(self) -> bool:
        """Return whether any client wants results as they come."""
        return self._in_flight.partial > 0 or self.is_watching

    def due(self, now: float) -> list[PageLook]:
        """Return whose page is to be read at `now`, in s, monotonic."""
        looks: list[PageLook] = []
        self.is_watching, self.next_at = False, math.inf
        for name, worker in self._workers.items() if self._in_flight.partial else ():
            if not worker.batches:
                continue
            seen = self._seen.get(name)
            if seen is None or seen.number != worker.first:
                seen = self._seen[name] = SeenBatch(worker, now)
            if seen.jobs and seen.has_more(worker.batches[0]):
                self.is_watching = True
                if seen.look_at <= now:
                    seen.look(now)
                    looks.append(PageLook(name, seen.number, seen.cursor, seen.jobs))
                self.next_at = min(self.next_at, seen.look_at)
        return looks

    def take(self, look: PageLook, pieces: Sequence[Piece], cursor: Cursor) -> list[Package]:
        """Take what was found; return the packages that are whole now. What makes no sense ends the looking."""
        worker, seen = self._workers.get(look.worker), self._seen.get(look.worker)
        if worker is None or seen is None or not worker.first == seen.number == look.number:
            return []
        if not self._in_flight.fits(sum(len(body or b"") for *_, body in pieces)):
            return []
        seen.find(cursor)
        self.next_at = min(self.next_at, seen.look_at)
        whole: list[Package] = []
        for piece in pieces:
            slice = seen.match(worker.batches[0], piece)
            if slice is None:
                self.give_up(look)
                break
            _, first, stop, failed, body = piece
            if failed >= MAY_RETRY:  # what it comes to is decided when the batch has ended
                self.give_up(look)
                break
            if body is None or not isinstance(slice.package.results, PartialResults):
                continue
            early = seen.early.setdefault((slice.package.flight.job, slice.first), Early(slice.first))
            early.stop, early.size, early.failed = stop, early.size + len(body), early.failed + failed
            worker.early += stop - first
            slice.package.results.worker = worker.name
            whole += self._in_flight.put_early(slice.package, first, stop, failed, body)
        return whole

    def give_up(self, look: PageLook) -> None:
        """Look no more at a batch whose worker has overwritten its page."""
        seen = self._seen.get(look.worker)
        if seen is not None and seen.number == look.number:
            seen.jobs = frozenset()

    def end(self, worker: LaneWorker) -> SeenBatch | None:
        """Return what was taken early of a worker's oldest batch, which ends; None for nothing."""
        if not self._seen:
            return None
        seen = self._seen.pop(worker.name, None)
        return seen if seen is not None and seen.number == worker.first and seen.early else None

    def rest_of(self, early: Early, entry: Answered) -> Answered:
        """Count the tasks of an entry that were taken early; return the rest of it, which may have no tasks."""
        job, first, stop, failed, took_ns, body = entry
        tasks = max(0, min(stop, early.stop) - first)
        if not tasks:
            return entry
        size, failures = min(early.size, len(body)), min(early.failed, failed)
        early.size, early.failed = early.size - size, early.failed - failures
        share = took_ns * tasks // (stop - first)
        self._in_flight.count_early(tasks, failures, share)
        return job, first + tasks, stop, failed - failures, took_ns - share, body[size:]
