"""Decides which worker runs what: packages, lanes and workers as a pure state machine.

Theory of operation. `accept` cuts a package into runs of chunks and queues them in their lanes. `dispatch` hands out
slices (neighbouring chunks of a package), placed as if each chunk went to the worker with the least work at that
moment, and returns one batch for each worker that got any. `finish` takes a worker's answer to its oldest batch; the
answer may hand the end of the batch back. `leave` takes a worker's death, with the account that the worker left. Both
return the packages that are complete now. Every accepted package is returned exactly once.

A batch holds about `BATCH_NS` of work by a moving estimate of a task's cost. At most `IN_FLIGHT` batches wait at a
worker. A chunk whose cost is unknown or large travels alone, so that nothing small waits behind it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence

from taskengine.broker import failure_reasons
from taskengine.broker.availability import Availability
from taskengine.broker.cancellation import CancelledTasks
from taskengine.broker.costs import Costs
from taskengine.broker.counters import Counters
from taskengine.broker.lane import Batch, BatchBuilder, Lane, LaneWorker, Slice
from taskengine.broker.lane_queue import Span
from taskengine.broker.package import Package, TaskKind, cancelled
from taskengine.broker.partials import Part
from taskengine.broker.quota import NO_LIMITS, Quota, QuotaLimits
from taskengine.broker.recovery import SENSELESS, Account, Answered, matched, recovered
from taskengine.broker.serials import Serials
from taskengine.broker.tuning import BATCH_NS, LATEST_RETRY_S, SOONEST_RETRY_S
from taskengine.errors import Overloaded, ProtocolError, TaskEngineError
from taskengine.protocol.layouts import DATA_LANES, DENIED_LANES, NO_DEADLINE
from taskengine.protocol.messages import Priority, Stats

_TURN_NS = BATCH_NS / 4
"""Work that a package gets in one turn while others wait."""
_DEADLINES_SPARE = 64
"""How many deadlines may be kept beyond twice the number of packages in flight."""


class Broker:
    """The state of the router.

    `size` is CHUNKING_SIZE or None, `lanes` the number of workers of each lane, `idempotent` the names of the
    idempotent tasks, `epoch` a number below 2**31 that no router before this one had, and `limits` how much may be in
    flight. The worker of a `pinned` lane owns pins: when it dies, nothing that waited for it runs, except tasks that
    move nothing.
    """

    def __init__(
        self,
        size: int | None,
        lanes: dict[str, int],
        idempotent: Container[str] = (),
        epoch: int = 1,
        limits: QuotaLimits = NO_LIMITS,
        pinned: Container[str] = (),
    ) -> None:
        self._quota = Quota(limits)
        self._pinned = pinned
        self._size = size
        self._idempotent = idempotent
        self._epochs = itertools.count(epoch)
        self._sizes = dict(lanes)
        self._lanes = {name: Lane(workers, is_shared=name.startswith(DATA_LANES)) for name, workers in lanes.items()}
        self._workers: dict[str, LaneWorker] = {}
        self.availability = Availability(self._lanes, self._sizes, self._workers)
        self._costs = Costs()
        self._jobs = 0
        self._deadlines: list[tuple[float, int]] = []
        """A heap of (deadline, job); some of the jobs are over."""
        self._urgent = 0
        self.packages: dict[int, Package] = {}
        self.serials = Serials()
        self._recalled: set[LaneWorker] = set()
        self._departed: set[bytes] = set()
        """Clients that have left."""
        self.progressed: dict[Package, None] = {}
        """Packages in flight with entries that their clients want as they come."""
        self._touched: set[Package] = set()
        """Packages with tasks that were cancelled since the last call of `revoke`."""
        self.counters = Counters()
        self.stopping = False

    def accept(self, package: Package) -> bool:
        """Take the package; return whether it is complete already, with no task allowed. Raises Overloaded."""
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
        size, is_exempt = package.measure(), package.is_exempt
        self._quota.take(package.owner, package.count, size, self._backlog_s, is_exempt=is_exempt)
        package.cut(self._size, self._sizes)
        self._jobs += 1
        package.job = self._jobs
        self.packages[package.job] = package
        self.serials.add(package)
        self.counters.accept(package)
        if package.deadline != NO_DEADLINE:
            self._note_deadline(package)
        self._urgent += package.priority == Priority.URGENT
        whole: list[Package] = []
        for run in package.runs:
            line = self._lanes.get(run.lane)
            if line is None:
                reason = failure_reasons.denied(run.lane.removeprefix(DENIED_LANES))
                whole += self._fail([(package, run.first, run.stop)], reason)
            else:
                line.add(Span(package, run, run.first, run.stop))
        return bool(whole)

    def join(self, name: str, lane: str, missing: Collection[str] = ()) -> None:
        """Add a worker that is ready, without the modules `missing`. Raises ProtocolError: name or lane."""
        if lane not in self._lanes:
            raise ProtocolError(f"worker {name} asks for lane {lane!r}, which is not configured")
        if name in self._workers:
            raise ProtocolError(f"worker {name} has joined already")
        worker = self._workers[name] = LaneWorker(name, lane, next(self._epochs) << 32, missing)
        self.availability.join(worker)

    def learn(self, idempotent: Container[str]) -> None:
        """Replace the names of the idempotent tasks."""
        self._idempotent = idempotent

    def retire(self, name: str) -> None:
        """Give a worker nothing more, and have it hand back what it has not begun."""
        worker = self._workers.get(name)
        if worker is not None:
            worker.is_excluded = worker.is_retired = True
            self._recalled.add(worker)

    def is_free(self, name: str) -> bool:
        """Return whether a worker is here and has nothing to do."""
        return name in self._workers and not self._workers[name].batches

    def exclude(self, name: str) -> None:
        """Give a worker nothing more, because it is about to be killed."""
        if name in self._workers:
            self._workers[name].is_excluded = True

    def held(self, name: str) -> range:
        """Return the numbers of the batches that a worker holds, the oldest first."""
        worker = self._workers.get(name)
        return range(worker.first, worker.first + len(worker.batches)) if worker else range(0)

    def leave(
        self,
        name: str,
        accounts: Sequence[Account | None],
        error: Callable[[str], TaskEngineError] | None = None,
        *,
        is_dead: bool = True,
    ) -> list[Package]:
        """Remove a worker that is dead, or that only has a new connection.

        `accounts` is what it has done of each batch, None if it had not begun it. Finished tasks keep their results;
        others go to another worker. The task that ran is answered with `error(its name)`; without `error` it goes to
        another worker if it is idempotent, and is answered with WorkerLost otherwise. A worker that ran no task died at
        the next chunk, which is answered with WorkerLost when DEATHS workers have died at it.
        """
        worker = self._workers.pop(name, None)
        if worker is None:
            return []
        self._recalled.discard(worker)
        self.availability.leave(worker)
        whole: list[Package] = []
        rest: list[Slice] = []
        is_blamed = worker.is_retired or not is_dead
        for slices, account in zip(worker.batches, accounts, strict=True):
            left = slices
            if account is not None:
                try:
                    done, left = recovered(self.packages, name, slices, account)
                except ProtocolError:
                    account, done, left = SENSELESS, [], slices
                if account is SENSELESS:
                    is_blamed = True
                    whole += self._fail([slice.tasks() for slice in slices], failure_reasons.lost(name))
                    continue
                whole += self._keep(name, done, is_timed=False)
                running = account[2]
                is_blamed = is_blamed or running is not None
                if left and running == (left[0].package.job, left[0].first):
                    lost, after = left[0], left[0].first + 1
                    if not error and lost.package.may_repeat(lost.first, self._idempotent):
                        self.counters.retried += 1
                    else:
                        reason = error(lost.package.name_of(lost.first)) if error else failure_reasons.lost(name)
                        whole += self._fail([(lost.package, lost.first, after)], reason)
                        left[:1] = [lost._replace(first=after)] if after < lost.stop else []
            rest += left
        if rest and not is_blamed:  # the chunk that it was about to begin has killed it, if that happens again
            head, after = rest[0], min(rest[0].package.blame(rest[0].first), rest[0].stop)
            whole += self._fail(
                [(head.package, head.first, after)] if after > head.first else [], failure_reasons.lost(name)
            )
            rest[:1] = [head._replace(first=after)] if after < head.stop else []
        if is_dead and worker.lane in self._pinned and not worker.is_retired:
            return whole + self._on_owner_death(worker, rest)
        return whole + self._return(rest)

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
        owed += [(span.package, span.first, span.stop) for span in self._lanes[worker.lane].revoke(lost)]
        whole = self._fail(owed, failure_reasons.owner_died(worker.lane, worker.name))
        return whole + self._return([slice for slice in rest if slice.package not in lost])

    def dispatch(self) -> list[Batch]:
        """Hand out work while workers have room."""
        batches: list[Batch] = []
        for lane in self._lanes.values():
            while lane.queued and (filled := self._fill(lane)):
                batches += filled
        return batches

    def recalls(self) -> list[tuple[str, int]]:
        """List workers that are to hand back tasks (others are urgent, or theirs cancelled), with their last batch."""
        if not (self._urgent or self._recalled):
            return []
        recalls = [(worker.name, worker.recall()) for worker in self._recalled if worker.batches]
        self._recalled.clear()
        for lane in self._lanes.values() if self._urgent else ():
            span = lane.next()
            if span is not None and span.package.priority == Priority.URGENT:
                recalls += [(worker.name, worker.recall()) for worker in lane.workers if worker.has_patient_work()]
        return recalls

    def finish(self, name: str, entries: Sequence[Answered]) -> list[Package]:
        """Take a worker's answer to its oldest batch. Raises ProtocolError for an answer that nobody asked for."""
        worker = self._workers.get(name)
        if worker is None or not worker.batches:
            raise ProtocolError(f"worker {name} answered a batch that it was not given")
        done, rest = matched(name, worker.batches[0], entries)
        worker.end_oldest()
        whole = self._keep(name, done, is_timed=True)
        return whole + self._return(rest) if rest else whole

    def _keep(self, name: str, done: Iterable[tuple[Slice, Sequence[Answered]]], *, is_timed: bool) -> list[Package]:
        """Take a worker's results, and their costs if `is_timed`. Return the packages that are complete now."""
        whole: list[Package] = []
        for slice, pieces in done:
            package = slice.package
            package.worker = name
            tasks = elapsed_ns = 0
            for _, first, stop, failed, took_ns, body in pieces:
                tasks += stop - first
                elapsed_ns += took_ns
                if not self._quota.holds(len(body)):
                    whole += self._fail([(package, first, stop)], failure_reasons.no_room())
                    continue
                package.failed += failed
                self.counters.answer(stop - first, failed, took_ns)
                whole += self._put(package, first, stop, body)
            if not is_timed:
                continue
            estimate = slice.cost * tasks / (slice.stop - slice.first)
            self._lanes[slice.run.lane].charge(package, elapsed_ns - estimate)
            cost = self._costs.learn(package.kind, tasks, elapsed_ns)
            if cost is not None:
                self._price(package.kind, cost)
        return whole

    def _return(self, rest: Sequence[Slice]) -> list[Package]:
        """Queue what was handed out and did not run before everything else; answer what is not to start."""
        whole: list[Package] = []
        for slice in reversed(rest):
            package = slice.package
            if package.reason is not None:
                whole += self._fail([slice.tasks()], package.reason)
            else:
                self._lanes[slice.run.lane].back(Span(package, slice.run, slice.first, slice.stop))
        return whole

    def give_up(self, name: str, error: TaskEngineError) -> list[Package]:
        """Answer a worker's oldest batch, whose answer cannot be sent, with `error`. Raises ProtocolError."""
        worker = self._workers.get(name)
        if worker is None or not worker.batches:
            raise ProtocolError(f"worker {name} answered a batch that it was not given")
        return self._fail([slice.tasks() for slice in worker.end_oldest()], error)

    def refuse_unserved(self) -> list[Package]:
        """Refuse what waits in a lane that has no workers and will get none."""
        whole: list[Package] = []
        error = Overloaded("the engine is stopping, and no worker is left for this task", retry_after=None)
        for lane in self._lanes.values():
            if not lane.workers:
                for span in lane.clear():
                    whole += self._fail([(span.package, span.first, span.stop)], error)
        return whole

    def settle(self, now: float) -> list[Package]:
        """Answer what is past its deadline or cancelled; call before `dispatch`. `now` is in s, monotonic."""
        self.availability.settle()
        whole = self.expire(now) if self._deadlines else []
        return whole + self.revoke() if self._touched or self._departed else whole

    def expire(self, now: float) -> list[Package]:
        """Answer tasks that waited past their deadline with TaskTimeout; they never start. `now` is in s, monotonic."""
        late: set[Package] = set()
        while self._deadlines and self._deadlines[0][0] <= now:
            package = self.packages.get(heapq.heappop(self._deadlines)[1])
            if package is not None and package.reason is None:
                package.reason = failure_reasons.too_late()
                late.add(package)
        return self._revoke(late)

    def cancel(self, client: bytes, serial: str | None = None, positions: Sequence[int] | None = None) -> None:
        """Cancel a client's package, or, without a serial, everything that the client has in flight.

        With positions, cancel only these tasks of the last package with that serial. Raises Overloaded where the
        positions are too scattered.
        """
        if serial is not None and positions is not None:
            newest = self.serials.newest(client, serial)
            packages = [] if newest is None else [newest]
        else:
            packages = self.serials.take_all(client) if serial is None else self.serials.take(client, serial)
            positions = None
        for package in packages:
            if package.cancel(positions):
                self._touched.add(package)

    def part(self, client: bytes) -> None:
        """Handle a client that has left: nothing starts that only it needs, or that waits in lanes with pins."""
        self._departed.add(client)

    def cancel_all(self, is_unwanted: Callable[[Package], bool]) -> None:
        """Cancel all packages for which `is_unwanted` is true."""
        for package in self.packages.values():
            if is_unwanted(package) and package.cancel(None):
                self._touched.add(package)

    def revoke(self) -> list[Package]:
        """Answer the waiting tasks of packages that were cancelled whole; workers hand back theirs (see `recalls`).

        Single cancelled tasks are answered when they would be handed out, or when nothing else is left of their
        package. Call this before `dispatch`.
        """
        parted, self._departed = self._departed, set()
        for client in parted:
            self._touched.update(package for package in self.serials.of(client) if package.part(self._pinned))
        if not self._touched:
            return []
        touched, self._touched = self._touched, set()
        for worker in self._workers.values():
            slices = (slice for batch in worker.batches for slice in batch if slice.package in touched)
            if any(slice.package.is_revoked(slice.first, slice.stop) for slice in slices):
                self._recalled.add(worker)
        over = {package for package in touched if package.is_over()}
        for package in over:
            package.cancel(None)
        return self._revoke(over)

    def _revoke(self, packages: Collection[Package]) -> list[Package]:
        """Answer what waits of these packages, each with its own reason."""
        whole: list[Package] = []
        if not packages:
            return whole
        touched = {lane for package in packages for lane, _ in package.lanes}
        for name, lane in self._lanes.items():
            for span in lane.revoke(packages) if name in touched else ():
                whole += self._fail([(span.package, span.first, span.stop)], span.package.reason or cancelled())
        return whole

    def abandon(self, error: TaskEngineError) -> list[Package]:
        """Answer everything in flight with `error`; the broker cannot be used afterwards."""
        for lane in self._lanes.values():
            lane.workers.clear()
        owed = [(package, first, stop) for package in self.packages.values() for first, stop in package.assembly.gaps()]
        return self._fail(owed, error)

    @property
    def timed(self) -> bool:
        """Return whether a package in flight has a deadline, or a client has left since `settle`."""
        return bool(self._deadlines or self._departed)

    def stats(self, restarts: Mapping[str, int], unread: int = 0) -> Stats:
        """Return the counters and the state of each lane; `restarts` by role, `unread` in bytes."""
        lanes = self.availability.stats()
        held = self._quota.bytes + self._quota.results + unread
        return self.counters.stats(lanes, len(self.packages), held, restarts)

    def idle(self) -> bool:
        """Return whether nothing is in flight."""
        return not self.packages

    def _fill(self, lane: Lane) -> list[Batch]:
        """Build at most one batch for each worker of the lane that has room."""
        span = lane.next()
        free = [worker for worker in lane.workers if worker.room()] if span else []
        if not free:
            return []
        filling = BatchBuilder(free)
        while span and filling.free and not lane.is_held_up(span):
            if span.package.unwanted is not None and not self._sift(lane, span, span.package.unwanted):
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
            batches.append(Batch(worker.name, worker.first + len(worker.batches), slices, lane.slice_ns))
            worker.batches.append(slices)
            lane.queued -= self.counters.hand_out(slices)
        return batches

    def _sift(self, lane: Lane, span: Span, unwanted: CancelledTasks) -> bool:
        """Answer the cancelled tasks that begin a span, end it before the next; return whether any task is left."""
        first, span.first = span.first, unwanted.end(span.first, span.stop)
        if first < span.first:
            lane.queued -= span.first - first
            # never the last of its package: `revoke` would have taken the whole package
            self._fail([(span.package, first, span.first)], cancelled())
        at = unwanted.begin(span.first, span.stop)
        if span.first < at < span.stop:
            lane.part(span, at)
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

    def _fail(self, tasks: Iterable[tuple[Package, int, int]], error: TaskEngineError) -> list[Package]:
        """Answer runs of tasks, (package, first, stop), with `error`."""
        whole = []
        for package, start, end in tasks:
            package.failed += end - start
            self.counters.fail(end - start, error)
            for first, stop, body in package.pieces_of(error, start, end):
                self._quota.hold(len(body))
                whole += self._put(package, first, stop, body)
        return whole

    def _put(self, package: Package, first: int, stop: int, body: bytes) -> list[Package]:
        """Take an answer; return the package if it is complete now."""
        if package.put(first, stop, body):
            return [self._release(package)]
        if package.partials is not None:
            self.progressed[package] = None
        if package.unwanted is not None and package.is_over():
            self._touched.add(package)
        return []

    def take_progressed(self) -> list[Package]:
        """Remove and return the packages in flight with new entries for clients that want each as it comes."""
        packages = list(self.progressed)
        self.progressed.clear()
        return packages

    def take_parts(self, package: Package) -> list[Part]:
        """Remove and return the entries of a package in flight, to be sent now."""
        self._quota.free(package.held)
        return package.take_parts()

    def _note_deadline(self, package: Package) -> None:
        heapq.heappush(self._deadlines, (package.deadline, package.job))
        if len(self._deadlines) > 2 * len(self.packages) + _DEADLINES_SPARE:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self.packages]
            heapq.heapify(self._deadlines)

    def _backlog_s(self) -> float:
        """Estimate how long everything in flight will take, in s."""
        workers = max(1, len(self._workers))
        return min(max(self._quota.tasks * self._costs.mean_ns / workers / 1e9, SOONEST_RETRY_S), LATEST_RETRY_S)

    def _release(self, package: Package) -> Package:
        del self.packages[package.job]
        self.counters.release(package)
        self.serials.remove(package)
        self.progressed.pop(package, None)
        held, is_exempt = package.held, package.is_exempt
        self._quota.give_back(package.owner, package.count, package.size, held, is_exempt=is_exempt)
        self._urgent -= package.priority == Priority.URGENT
        if not self.packages:
            self._deadlines.clear()
        return package
