"""Decides which worker runs what: packages, lanes and workers as a pure state machine.

Theory of operation. `accept` cuts a package into runs of chunks and queues them in their lanes. `dispatch` hands out
slices (neighbouring chunks of a package), placed as if each chunk went to the worker with the least work at that
moment, and returns one batch for each worker that got any. `finish` takes a worker's answer to its oldest batch; the
answer may hand the end of the batch back. `leave` takes a worker's death, with the account that the worker left. Both
return the packages that are whole now. Every accepted package is returned exactly once.

The broker's state lies in parts with one concern each: `workers` and `availability` (the workers, and the tasks that
each has loaded), `lanes` (waiting tasks), `Dispatcher` (hands tasks to workers), `balancer` (takes tasks back from
workers), `InFlight` (packages and their results) and `withdrawals` (tasks that are not to start any more). Only this
class moves work between them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from types import MappingProxyType

from taskengine.broker import failure_reasons
from taskengine.broker.availability import Availability
from taskengine.broker.balancer import Balancer
from taskengine.broker.cancellation import cancelled
from taskengine.broker.dispatch import Dispatcher
from taskengine.broker.in_flight import InFlight
from taskengine.broker.lane import Lane, LaneWorker, Slice
from taskengine.broker.lane_queue import Span
from taskengine.broker.looks import Looks, SeenBatch
from taskengine.broker.package import Package
from taskengine.broker.quota import NO_LIMITS, QuotaLimits
from taskengine.broker.recovery import BEGUN, Account, Answered, Matched, begun, matched, recovered, without_cut_streams
from taskengine.broker.retries import Retries
from taskengine.broker.withdrawals import Withdrawals
from taskengine.broker.workers import Workers
from taskengine.errors import Overloaded, ProtocolError, TaskEngineError
from taskengine.protocol.layouts import DATA_LANES, DENIED_LANES, MAY_RETRY
from taskengine.protocol.messages import Stats


class Broker:
    """The state of the router.

    `size` is CHUNKING_SIZE or None, `lanes` the number of workers of each lane, `idempotent` the names of the
    idempotent tasks, `epoch` a number below 2**31 that no router before this one had, and `limits` how much may be in
    flight. The worker of a `pinned` lane owns pins: when it dies, nothing that waited for it runs, except tasks that
    move nothing. Workers run one task at a time, except in the lanes of `concurrency`, which says how many at most.
    """

    def __init__(
        self,
        size: int | None,
        lanes: dict[str, int],
        idempotent: Container[str] = (),
        epoch: int = 1,
        limits: QuotaLimits = NO_LIMITS,
        pinned: Container[str] = (),
        concurrency: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._pinned = pinned
        self._size = size
        self._idempotent = idempotent
        self._sizes = dict(lanes)
        self._lanes = {
            name: Lane(workers, is_shared=name.startswith(DATA_LANES), concurrency=concurrency.get(name, 1))
            for name, workers in lanes.items()
        }
        self.workers = Workers(epoch)
        self.availability = Availability(self._lanes, self._sizes, self.workers)
        self._in_flight = InFlight(limits)
        self.packages = self._in_flight.packages
        self.serials = self._in_flight.serials
        self.counters = self._in_flight.counters
        self.progressed = self._in_flight.progressed
        self.take_progressed, self.take_parts = self._in_flight.take_progressed, self._in_flight.take_parts
        self.withdrawals = Withdrawals(self._in_flight, pinned)
        self.retries = Retries(self._lanes, self.counters)
        self._dispatcher = Dispatcher(self._lanes, self.workers, self._in_flight)
        self.balancer = Balancer(self._lanes, self.workers)
        self.looks = Looks(self.workers, self._in_flight)
        # bound here, so that each turn of the router saves two calls
        self.dispatch, self.recalls = self._dispatcher.dispatch, self._dispatcher.recalls
        self.stopping = False

    def tick(self, now: float) -> None:
        """Begin a turn of the router at `now`, in s, monotonic."""
        self._dispatcher.now = now
        self.counters.tick(now)

    def accept(self, package: Package) -> bool:
        """Take the package; return whether it is whole already, with no task allowed. Raises Overloaded."""
        if self.stopping:
            raise Overloaded("the engine is stopping", retry_after=None)
        denied = []
        for lane, tasks in package.lanes:
            if lane in self._lanes:
                continue
            if not lane.startswith(DENIED_LANES):
                raise Overloaded(f"no worker serves lane {lane!r}", retry_after=None)
            denied.append(tasks)
        if denied:
            failure_reasons.check_denied(denied)
        if not package.count:
            return True
        self._in_flight.add(package, self._dispatcher.backlog_s)
        self.withdrawals.deadlines.add(package)
        package.cut(self._size, self._sizes)
        whole: list[Package] = []
        for run in package.flight.chunks.runs:
            line = self._lanes.get(run.lane)
            if line is None:
                reason = failure_reasons.denied(run.lane.removeprefix(DENIED_LANES))
                whole += self._in_flight.fail([(package, run.first, run.stop)], reason)
            else:
                line.add(Span(package, run, run.first, run.stop))
        return bool(whole)

    def join(self, name: str, lane: str, missing: Collection[str] = (), *, cancels: bool = False) -> None:
        """Add a worker that is ready, without the modules `missing`; it may be able to cancel running tasks.

        Raises ProtocolError: name or lane.
        """
        if lane not in self._lanes:
            raise ProtocolError(f"worker {name} asks for lane {lane!r}, which is not configured")
        most = self._lanes[lane].concurrency
        self.availability.join(self.workers.join(name, lane, missing, most, cancels=cancels))

    def learn(self, idempotent: Container[str]) -> None:
        """Replace the names of the idempotent tasks."""
        self._idempotent = idempotent

    def leave(
        self,
        name: str,
        accounts: Sequence[Account | None],
        error: Callable[[str], TaskEngineError] | None = None,
        *,
        is_dead: bool = True,
        overdue: Container[int] | None = None,
    ) -> list[Package]:
        """Remove a worker that is dead, or that only has a new connection.

        `accounts` is what it has done of each batch, None if it had not begun it. Finished tasks keep their results;
        others go to another worker. The task that ran is answered with `error(its name)`; without `error` it goes to
        another worker if it is idempotent, and is answered with WorkerLost otherwise. A worker that ran no task died at
        the next chunk, which is answered with WorkerLost when DEATHS workers have died at it. Of several tasks that
        ran, only those in the batches `overdue` are answered with `error`.
        """
        worker = self.workers.leave(name)
        if worker is None:
            return []
        self.availability.leave(worker)
        whole: list[Package] = []
        rest: list[Slice] = []
        seen = self.looks.end(worker)
        is_blamed = worker.is_retired or not is_dead
        for number, slices, account in zip(worker.numbers(), worker.batches, accounts, strict=True):
            seen_here = seen if slices is worker.batches[0] else None
            if account is None:
                rest += _unseen(slices, seen_here)
                continue
            account = begun(slices) if account is BEGUN else account
            try:
                done, left = recovered(self.packages, name, slices, account)
            except ProtocolError:  # the worker overwrote its account: any task of the batch may have run
                is_blamed = True
                owed = [slice.tasks() for slice in _unseen(slices, seen_here)]
                whole += self._in_flight.fail(owed, failure_reasons.lost(name))
                continue
            whole += self._keep_left_behind(name, done, seen_here, rest)
            left = _unseen(left, seen_here)
            is_blamed = is_blamed or account.running is not None
            if left and account.running == (left[0].package.flight.job, left[0].first):
                whole += self._on_running_task_lost(name, left, error if overdue is None or number in overdue else None)
            rest += left
        if rest and not is_blamed:
            whole += self._blame(name, rest)
        if is_dead and worker.lane in self._pinned and not worker.is_retired:
            return whole + self._on_owner_death(worker, rest)
        return whole + self._dispatcher.put_back(rest)

    def _keep_left_behind(self, name: str, done: Matched, seen: SeenBatch | None, rest: list[Slice]) -> list[Package]:
        """Take what a dead worker had finished. Streams without their last values are lost, or run again: `rest`."""
        done, cut = without_cut_streams(done)
        whole = self._keep(name, done, seen, is_timed=False)
        for stream in cut:
            again = [stream]
            whole += self._on_running_task_lost(name, again, None)
            rest += again
        return whole

    def _on_running_task_lost(
        self, name: str, left: list[Slice], error: Callable[[str], TaskEngineError] | None
    ) -> list[Package]:
        """Answer the first task of `left`, which ran when its worker died, or leave it there to run again."""
        lost, after = left[0], left[0].first + 1
        package = lost.package
        if not error and self._is_idempotent(package, lost.first) and package.flight.losses.may_repeat(lost.first):
            self.counters.retried += 1
            return []
        left[:1] = [lost._replace(first=after)] if after < lost.stop else []
        reason = error(package.name_of(lost.first)) if error else failure_reasons.lost(name)
        return self._in_flight.fail([(package, lost.first, after)], reason)

    def _is_idempotent(self, package: Package, position: int) -> bool:
        return not package.results.is_begun and (package.idempotent or package.name_of(position) in self._idempotent)

    def _blame(self, name: str, rest: list[Slice]) -> list[Package]:
        """Blame the chunk that a dead worker was about to begin, the first of `rest`; answer it if that is not new."""
        head = rest[0]
        part, _, stop = next(head.package.flight.chunks.between(head.first, head.package.count))
        if not head.package.flight.losses.blame(part):
            return []
        after = min(stop, head.stop)
        rest[:1] = [head._replace(first=after)] if after < head.stop else []
        return self._in_flight.fail([(head.package, head.first, after)], failure_reasons.lost(name))

    def _on_owner_death(self, worker: LaneWorker, rest: Sequence[Slice]) -> list[Package]:
        """Handle the death of an owner of pins: what it had not begun, `rest`, ends with what waits in its lane.

        Packages whose tasks are all idempotent (they move nothing, or stop something) wait for the next owner.
        """
        lost = {
            package
            for package in self.packages.values()
            if any(lane == worker.lane for lane, _ in package.lanes)
            and not (package.kind and all(name in self._idempotent for name in package.kind))
        }
        owed = [slice.tasks() for slice in rest if slice.package in lost]
        owed += [span.tasks() for span in self._lanes[worker.lane].revoke(lost)]
        whole = self._in_flight.fail(owed, failure_reasons.owner_died(worker.lane, worker.name))
        return whole + self._dispatcher.put_back([slice for slice in rest if slice.package not in lost])

    def finish(self, name: str, entries: Sequence[Answered], number: int | None = None) -> list[Package]:
        """Take a worker's answer to its oldest batch, or, in a concurrent lane, to the batch with a number.

        Raises ProtocolError for an answer that nobody asked for.
        """
        done, rest = matched(name, self.workers.answered(name, number), entries)
        seen = self._end(name, number)
        whole = self._keep(name, done, seen, is_timed=True)
        return whole + self._dispatcher.put_back(_unseen(rest, seen)) if rest else whole

    def give_up(self, name: str, error: TaskEngineError, number: int | None = None) -> list[Package]:
        """Answer a worker's batch, as in `finish`, whose answer cannot be sent, with `error`. Raises ProtocolError."""
        slices = self.workers.answered(name, number)
        slices = _unseen(slices, self._end(name, number))
        return self._in_flight.fail([slice.tasks() for slice in slices], error)

    def _end(self, name: str, number: int | None) -> SeenBatch | None:
        """Remove a batch that a worker has answered; return what was taken early of it."""
        seen = self.looks.end(self.workers[name]) if number is None else None
        self.workers.end(name, number, self._dispatcher.now)
        return seen

    def take_back(self, name: str, number: int, left: int) -> list[Package]:
        """Leave a worker's batch so many tasks, as the router has told it; the others wait for another worker."""
        return self._dispatcher.put_back(self.balancer.take_back(name, number, left))

    def _keep(self, name: str, done: Matched, seen: SeenBatch | None, *, is_timed: bool) -> list[Package]:
        """Take a worker's results but for those `seen` early, and their costs if `is_timed`.

        Return the packages that are whole now.
        """
        whole: list[Package] = []
        for slice, pieces in done:
            package = slice.package
            early = seen.early.get((package.flight.job, slice.first)) if seen is not None else None
            tasks = elapsed_ns = 0
            for entry in pieces:
                _, first, stop, failed, took_ns, body = entry
                tasks += stop - first
                elapsed_ns += took_ns
                if early is not None:
                    _, first, stop, failed, took_ns, body = self.looks.rest_of(early, entry)
                    if first == stop:
                        continue
                if failed >= MAY_RETRY:
                    if not self.stopping and self.retries.keep(slice, first, self.counters.now):
                        continue
                    failed -= MAY_RETRY
                package.results.worker = name
                ended = self._in_flight.put(package, first, stop, failed, took_ns, body)
                if ended is None:
                    ended = self._in_flight.fail([(package, first, stop)], failure_reasons.no_room())
                whole += ended
            if is_timed:
                self._dispatcher.learn(slice, tasks, elapsed_ns)
        return whole

    def refuse_unserved(self) -> list[Package]:
        """Refuse what waits in a lane that has no workers and will get none."""
        error = Overloaded("the engine is stopping, and no worker is left for this task", retry_after=None)
        unserved = [lane for lane in self._lanes.values() if not lane.workers]
        return self._in_flight.fail([span.tasks() for lane in unserved for span in lane.clear()], error)

    def settle(self, now: float) -> list[Package]:
        """Answer what is past its deadline or cancelled; call before `dispatch`. `now` is in s, monotonic."""
        if self.availability.unsettled:
            self.availability.settle()
        withdrawals = self.withdrawals
        whole = self.expire(now) if withdrawals.deadlines else []
        if self.retries.due <= now:
            whole += self._dispatcher.put_back(self.retries.take(now))
        return whole + self.revoke() if self._in_flight.touched or withdrawals.departed else whole

    def expire(self, now: float) -> list[Package]:
        """Answer tasks that waited past their deadline with TaskTimeout; they never start. `now` is in s, monotonic."""
        return self._answer_waiting(self.withdrawals.late(now))

    def revoke(self) -> list[Package]:
        """Answer the waiting tasks of packages that were cancelled whole; workers hand back theirs (see `recalls`).

        Single cancelled tasks are answered when they would be handed out, or when nothing else is left of their
        package. Call this before `dispatch`.
        """
        touched = self.withdrawals.take()
        if not touched:
            return []
        self.workers.recall_cancelled(touched)
        over = {package for package in touched if package.flight.cancellation.is_over(package.results.missing)}
        for package in over:
            package.flight.cancellation.cancel_all(cancelled())
        return self._answer_waiting(over)

    def _answer_waiting(self, packages: Collection[Package]) -> list[Package]:
        """Answer what waits of these packages, each with the reason for which it was cancelled."""
        whole: list[Package] = []
        if not packages:
            return whole
        for slice in self.retries.revoke(packages):
            whole += self._in_flight.fail([slice.tasks()], slice.package.flight.cancellation.reason or cancelled())
        touched = {lane for package in packages for lane, _ in package.lanes}
        for name, lane in self._lanes.items():
            for span in lane.revoke(packages) if name in touched else ():
                whole += self._in_flight.fail([span.tasks()], span.package.flight.cancellation.reason or cancelled())
        return whole

    def abandon(self, error: TaskEngineError) -> list[Package]:
        """Answer everything in flight with `error`; the broker cannot be used afterwards."""
        for lane in self._lanes.values():
            lane.workers.clear()
        return self._in_flight.fail(self._in_flight.gaps(), error)

    def stats(self, restarts: Mapping[str, int], unread: int = 0) -> Stats:
        """Return the counters and the state of each lane; `restarts` by role, `unread` in bytes."""
        return self.counters.stats(
            self.availability.stats(), len(self.packages), self._in_flight.size + unread, restarts
        )

    @property
    def bytes_held(self) -> int:
        """The bytes of packages in flight, and of their results so far."""
        return self._in_flight.size

    def idle(self) -> bool:
        """Return whether nothing is in flight."""
        return not self.packages


def _unseen(slices: list[Slice], seen: SeenBatch | None) -> list[Slice]:
    """Return the slices without the tasks that were answered early."""
    return slices if seen is None else seen.unseen(slices)
