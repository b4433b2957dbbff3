"""Hands out what waits in the lanes to their workers. Pure.

A batch holds about `BATCH_NS` of work by a moving estimate of a task's cost. At most `IN_FLIGHT` batches wait at a
worker. A chunk whose cost is unknown or large travels alone, so that nothing small waits behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from taskengine.broker.cancellation import CancelledTasks, cancelled
from taskengine.broker.costs import Costs
from taskengine.broker.in_flight import InFlight
from taskengine.broker.lane import Batch, BatchBuilder, Lane, LaneWorker, Slice
from taskengine.broker.lane_queue import Span
from taskengine.broker.package import Package, TaskKind
from taskengine.broker.tuning import BATCH_NS, LATEST_RETRY_S, SOONEST_RETRY_S
from taskengine.broker.workers import Workers
from taskengine.protocol.messages import Priority

_TURN_NS = BATCH_NS / 4
"""Work that a package gets in one turn while others wait."""


_load = attrgetter("load")


def _held(worker: LaneWorker) -> int:
    return len(worker.batches)


class Dispatcher:
    """Decides which of the `workers` gets which tasks of the `lanes`, and when."""

    def __init__(self, lanes: Mapping[str, Lane], workers: Workers, in_flight: InFlight) -> None:
        self._lanes = lanes
        self._workers = workers
        self._in_flight = in_flight
        self._costs = Costs()
        self._timed: list[tuple[Slice, int, int]] = []
        """The times of tasks that count from the next `dispatch` on."""
        self.now = 0.0
        """In s, monotonic."""

    def dispatch(self) -> list[Batch]:
        """Hand out work while workers have room."""
        if self._timed:
            timed, self._timed = self._timed, []
            for slice, tasks, elapsed_ns in timed:
                self._learn(slice, tasks, elapsed_ns)
        batches: list[Batch] = []
        for lane in self._lanes.values():
            while lane.queued and (filled := self._fill(lane)):
                batches += filled
        return batches

    def recalls(self) -> list[tuple[str, int]]:
        """List workers that are to hand back tasks (others are urgent, or theirs cancelled), with their last batch."""
        recalls = self._workers.recalls() if self._workers.recalled else []
        for lane in self._lanes.values() if self._in_flight.urgent else ():
            span = lane.next()
            if span is not None and span.package.priority == Priority.URGENT:
                recalls += [(worker.name, worker.recall()) for worker in lane.workers if worker.has_patient_work()]
        return recalls

    def learn(self, slice: Slice, tasks: int, elapsed_ns: int) -> None:
        """Note that so many tasks of a slice took so long; it counts from the next `dispatch` on.

        So their client's answer, which leaves before that, does not wait for it.
        """
        self._timed.append((slice, tasks, elapsed_ns))

    def _learn(self, slice: Slice, tasks: int, elapsed_ns: int) -> None:
        """Estimate the cost of a task by what tasks of a slice took, and charge their package for that."""
        package = slice.package
        estimate = slice.cost * tasks / (slice.stop - slice.first)
        self._lanes[slice.run.lane].charge(package, elapsed_ns - estimate)
        cost = self._costs.learn(package.kind, tasks, elapsed_ns)
        if cost is not None:
            self._price(package.kind, cost)

    def put_back(self, slices: Sequence[Slice]) -> list[Package]:
        """Queue what was handed out and did not run before everything else, unless it is not to start.

        Return the packages that are whole now, because all of that was cancelled.
        """
        whole: list[Package] = []
        for slice in reversed(slices):
            package = slice.package
            reason = package.flight.cancellation.reason
            if reason is not None:
                whole += self._in_flight.fail([slice.tasks()], reason)
            else:
                self._lanes[slice.run.lane].back(Span(package, slice.run, slice.first, slice.stop, is_again=True))
        return whole

    def backlog_s(self) -> float:
        """Estimate how long everything in flight will take, in s."""
        workers = max(1, len(self._workers))
        return min(max(self._in_flight.tasks * self._costs.mean_ns / workers / 1e9, SOONEST_RETRY_S), LATEST_RETRY_S)

    def _fill(self, lane: Lane) -> list[Batch]:
        """Build at most one batch for each worker that has room, or, in a concurrent lane, for each free place."""
        if lane.concurrency > 1:
            return list(self._fill_places(lane))
        span = lane.next()
        free = [worker for worker in lane.workers if worker.room()] if span else []
        if not span or not free:
            return []
        if lane.queued == 1 and span.package.flight.cancellation.tasks is None:
            return self._fill_one(lane, span, free)
        filling = BatchBuilder(free.copy())
        while span and filling.free and not lane.is_held_up(span):
            cancelled_tasks = span.package.flight.cancellation.tasks
            if cancelled_tasks is not None and not self._sift(lane, span, cancelled_tasks):
                span = lane.next()
                continue
            cost = self._cost(span)
            if cost >= BATCH_NS:
                given = filling.give_one(span, cost)
            else:
                chunks = span.chunks()
                if lane.crowded(span):
                    chunks = min(chunks, max(1, int(_TURN_NS / cost)))
                given = filling.give_many(span, chunks, cost)
            lane.charge(span.package, given * cost)
            span = lane.next()
        batches = []
        for worker, slices in filling.slices.items():
            tasks = self._in_flight.counters.hand_out(slices)
            batches.append(Batch(worker.name, worker.hold(slices, self.now), slices, lane.slice_ns, tasks))
            lane.queued -= tasks
        self._note_idle(lane, free)
        return batches

    def _fill_one(self, lane: Lane, span: Span, free: list[LaneWorker]) -> list[Batch]:
        """Build the batch of a task beside which nothing waits: it goes to the least loaded of the `free` workers."""
        if lane.is_held_up(span):
            return []
        worker = min(free, key=_load) if len(free) > 1 else free[0]
        cost = self._cost(span)
        slices = [Slice(span.package, span.run, span.first, span.stop, cost, span.is_again)]
        span.first = span.stop
        worker.load += cost
        lane.charge(span.package, cost)
        lane.queued -= self._in_flight.counters.hand_out(slices)
        number = worker.hold(slices, self.now)
        self._note_idle(lane, free)
        return [Batch(worker.name, number, slices, lane.slice_ns, 1)]

    def _note_idle(self, lane: Lane, free: list[LaneWorker]) -> None:
        """Have the balancer look, where one of the workers that had room has got nothing."""
        if lane.slice_ns:
            for worker in free:
                if not worker.batches:
                    self._workers.has_idle = True
                    return

    def _fill_places(self, lane: Lane) -> Iterator[Batch]:
        """Yield a batch of one task for each free place of the lane's workers, as long as there are tasks."""
        span = lane.next()
        while span is not None:
            worker = min((worker for worker in lane.workers if worker.room()), key=_held, default=None)
            if worker is None:
                return
            cancelled_tasks = span.package.flight.cancellation.tasks
            if cancelled_tasks is None or self._sift(lane, span, cancelled_tasks):
                cost = self._costs.known.get(span.package.kind) or 2.0 * BATCH_NS
                slices = [Slice(span.package, span.run, span.first, span.first + 1, cost, span.is_again)]
                span.first += 1
                lane.charge(span.package, cost)
                lane.queued -= self._in_flight.counters.hand_out(slices)
                yield Batch(worker.name, worker.hold(slices, self.now), slices, 0, 1)
            span = lane.next()

    def _sift(self, lane: Lane, span: Span, tasks: CancelledTasks) -> bool:
        """Answer the cancelled tasks that begin a span, end it before the next; return whether any task is left."""
        first, span.first = span.first, tasks.end(span.first, span.stop)
        if first < span.first:
            lane.queued -= span.first - first
            # never the last of its package: `Broker.revoke` would have taken the whole package
            self._in_flight.fail([(span.package, first, span.first)], cancelled())
        at = tasks.begin(span.first, span.stop)
        if span.first < at < span.stop:
            lane.split(span, at)
        return span.first < span.stop

    def _cost(self, span: Span) -> float:
        """Estimate the cost of the span's next chunk in ns; an unknown cost counts as too much to share a batch."""
        cost = self._costs.known.get(span.package.kind)
        return 2.0 * BATCH_NS if cost is None else cost * (span.end(1) - span.first)

    def _price(self, kind: TaskKind, cost: float) -> None:
        """Correct the load of workers that have tasks of this kind, handed out when its cost was unknown."""
        for worker in self._workers.values():
            for batch in worker.batches:
                batch[:] = [
                    slice._replace(cost=cost * (slice.stop - slice.first)) if slice.package.kind == kind else slice
                    for slice in batch
                ]
            worker.weigh()
