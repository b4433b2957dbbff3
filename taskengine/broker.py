"""Who runs what: packages, lanes and workers, as a pure state machine.

Theory of operation. `accept` cuts a package into runs of chunks and queues them in their lanes. `dispatch` hands out
slices, neighbouring chunks of a package, each as if its chunks one by one went to the worker with the least work
before it, and returns one batch for each worker that got any. `finish` takes a worker's answer to its oldest batch,
which may hand the end of it back; `leave` takes a worker's death, with the account that it left. Both return the
packages that are whole now, and every accepted package is returned exactly once.

A batch holds about `BATCH_NS` of work by a moving estimate of a task's cost, and at most `IN_FLIGHT` batches wait at
a worker; a chunk whose cost is unknown or large travels alone, so that nothing small is stuck behind it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence

from taskengine import causes
from taskengine.availability import Availability
from taskengine.costs import Costs
from taskengine.counters import Counters
from taskengine.errors import Overloaded, ProtocolError, TaskEngineError
from taskengine.lane import Batch, Filling, Lane, Slice, Worker
from taskengine.messages import Priority, Stats
from taskengine.package import Package, TaskKind, cancelled
from taskengine.quota import NO_LIMITS, Limits, Quota
from taskengine.salvage import SENSELESS, Account, Answered, matched, salvaged
from taskengine.serials import Serials
from taskengine.turns import Span
from taskengine.unwanted import Unwanted
from taskengine.wire import BATCH_NS, DATA_LANES, DENIED_LANES, LATEST_RETRY_S, NO_DEADLINE, SOONEST_RETRY_S

_TURN_NS = BATCH_NS / 4
"""Work that a package gets at a turn while others wait."""
_DEADLINES_SPARE = 64
"""Deadlines that may be kept beside twice as many as packages are in flight."""


class Broker:
    """The state of the router.

    `size` is CHUNKING_SIZE or None, `lanes` the number of workers of each lane, `idempotent` the names of the tasks
    that are, `epoch` a number below 2**31 that no router before this one had, and `limits` how much may be in flight.
    The worker of a `pinned` lane has pins: nothing that waited for it runs after its death, but what moves nothing.
    """

    def __init__(
        self,
        size: int | None,
        lanes: dict[str, int],
        idempotent: Container[str] = (),
        epoch: int = 1,
        limits: Limits = NO_LIMITS,
        pinned: Container[str] = (),
    ) -> None:
        self._quota = Quota(limits)
        self._pinned = pinned
        self._size = size
        self._idempotent = idempotent
        self._epochs = itertools.count(epoch)
        self._sizes = dict(lanes)
        self._lanes = {name: Lane(workers, is_shared=name.startswith(DATA_LANES)) for name, workers in lanes.items()}
        self._workers: dict[str, Worker] = {}
        self.availability = Availability(self._lanes, self._sizes, self._workers)
        self._costs = Costs()
        self._jobs = 0
        self._deadlines: list[tuple[float, int]] = []
        """A heap of deadlines and jobs, some of which are over."""
        self._urgent = 0
        self.packages: dict[int, Package] = {}
        self.serials = Serials()
        self._recalled: set[Worker] = set()
        self._parted: set[bytes] = set()
        """Clients that have left."""
        self._touched: set[Package] = set()
        """Packages with tasks that are not wanted any more, since `revoke` has seen to it."""
        self.counters = Counters()
        self.stopping = False

    def accept(self, package: Package) -> bool:
        """Own the package from here on; True where it is whole already, having no tasks that its client may call.

        Raises Overloaded when the engine is stopping, a lane of the package has no workers configured, or too much is
        in flight.
        """
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
            causes.check_denied(denied)
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
                reason = causes.denied(run.lane.removeprefix(DENIED_LANES))
                whole += self._fail([(package, run.first, run.stop)], reason)
            else:
                line.add(Span(package, run, run.first, run.stop))
        return bool(whole)

    def join(self, name: str, lane: str, missing: Collection[str] = ()) -> None:
        """A worker is ready, without the modules `missing`. Raises ProtocolError for no lane, or a name in use."""
        if lane not in self._lanes:
            raise ProtocolError(f"worker {name} asks for lane {lane!r}, which is not configured")
        if name in self._workers:
            raise ProtocolError(f"worker {name} has joined already")
        worker = self._workers[name] = Worker(name, lane, next(self._epochs) << 32, missing)
        self.availability.join(worker)

    def learn(self, idempotent: Container[str]) -> None:
        """Other tasks are idempotent from here on."""
        self._idempotent = idempotent

    def retire(self, name: str) -> None:
        """A worker is to get nothing more, and to hand back what it has and has not begun."""
        worker = self._workers.get(name)
        if worker is not None:
            worker.is_condemned = worker.is_retired = True
            self._recalled.add(worker)

    def is_free(self, name: str) -> bool:
        """A worker is here and has nothing to do."""
        return name in self._workers and not self._workers[name].batches

    def condemn(self, name: str) -> None:
        """A worker is to get nothing more: it will be dead soon."""
        if name in self._workers:
            self._workers[name].is_condemned = True

    def held(self, name: str) -> range:
        """The numbers of the batches that a worker holds, the oldest first."""
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
        """A worker is dead, or only has a new connection, with this account of each batch that it held, None where it
        had not begun it.

        What it had done is kept, what it had not begun goes to another. The task that it ran is answered with
        `error(its name)`, or, where that is None, with WorkerLost unless it is idempotent and goes to another too. A
        worker that ran none died at the chunk that was next, which is WorkerLost where DEATHS workers have.
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
                    done, left = salvaged(self.packages, name, slices, account)
                except ProtocolError:
                    account, done, left = SENSELESS, [], slices
                if account is SENSELESS:
                    is_blamed = True
                    whole += self._fail([slice.tasks() for slice in slices], causes.lost(name))
                    continue
                whole += self._keep(name, done, is_timed=False)
                running = account[2]
                is_blamed = is_blamed or running is not None
                if left and running == (left[0].package.job, left[0].first):
                    lost, after = left[0], left[0].first + 1
                    if not error and lost.package.may_repeat(lost.first, self._idempotent):
                        self.counters.retried += 1
                    else:
                        reason = error(lost.package.name_of(lost.first)) if error else causes.lost(name)
                        whole += self._fail([(lost.package, lost.first, after)], reason)
                        left[:1] = [lost._replace(first=after)] if after < lost.stop else []
            rest += left
        if rest and not is_blamed:  # what it was about to begin has ended it, where that happens again
            head, after = rest[0], min(rest[0].package.blame(rest[0].first), rest[0].stop)
            whole += self._fail([(head.package, head.first, after)] if after > head.first else [], causes.lost(name))
            rest[:1] = [head._replace(first=after)] if after < head.stop else []
        if is_dead and worker.lane in self._pinned and not worker.is_retired:
            return whole + self._bereave(worker, rest)
        return whole + self._return(rest)

    def _bereave(self, worker: Worker, rest: Sequence[Slice]) -> list[Package]:
        """The owner of pins died: `rest`, which it had not begun, and what waits in its lane ends with it.

        Packages of nothing but idempotent tasks, which are those that move nothing or stop something, wait for another.
        """
        lost = {
            package
            for package in self.packages.values()
            if any(lane == worker.lane for lane, _ in package.lanes)
            and not (package.kind and all(name in self._idempotent for name in package.kind))
        }
        owed = [slice.tasks() for slice in rest if slice.package in lost]
        owed += [(span.package, span.first, span.stop) for span in self._lanes[worker.lane].revoke(lost)]
        whole = self._fail(owed, causes.bereft(worker.lane, worker.name))
        return whole + self._return([slice for slice in rest if slice.package not in lost])

    def dispatch(self) -> list[Batch]:
        """Hand out what there is room for."""
        batches: list[Batch] = []
        for lane in self._lanes.values():
            while lane.queued and (filled := self._fill(lane)):
                batches += filled
        return batches

    def recalls(self) -> list[tuple[str, int]]:
        """Workers that are to hand back what they have once their task has ended, with their last batch's number: what
        is urgent waits, and is not what they have, or something that they have is not wanted any more."""
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
        """Take a worker's answer to its oldest batch. Raises ProtocolError for an answer that was not asked for."""
        worker = self._workers.get(name)
        if worker is None or not worker.batches:
            raise ProtocolError(f"worker {name} answered what nobody asked")
        done, rest = matched(name, worker.batches[0], entries)
        worker.end_oldest()
        whole = self._keep(name, done, is_timed=True)
        return whole + self._return(rest) if rest else whole

    def _keep(self, name: str, done: Iterable[tuple[Slice, Sequence[Answered]]], *, is_timed: bool) -> list[Package]:
        """Take the results of a worker; where `is_timed` they tell what they cost. The packages that are whole now."""
        whole: list[Package] = []
        for slice, pieces in done:
            package = slice.package
            package.worker = name
            tasks = elapsed_ns = 0
            for _, first, stop, failed, took_ns, body in pieces:
                tasks += stop - first
                elapsed_ns += took_ns
                if not self._quota.holds(len(body)):
                    whole += self._fail([(package, first, stop)], causes.no_room())
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
        """What was handed out and did not run waits again, before all else, or is answered where it is not to start."""
        whole: list[Package] = []
        for slice in reversed(rest):
            package = slice.package
            if package.reason is not None:
                whole += self._fail([slice.tasks()], package.reason)
            else:
                self._lanes[slice.run.lane].back(Span(package, slice.run, slice.first, slice.stop))
        return whole

    def give_up(self, name: str, error: TaskEngineError) -> list[Package]:
        """A worker has run its oldest batch and cannot answer: answer that with `error`. Raises ProtocolError."""
        worker = self._workers.get(name)
        if worker is None or not worker.batches:
            raise ProtocolError(f"worker {name} answered what nobody asked")
        return self._fail([slice.tasks() for slice in worker.end_oldest()], error)

    def forsake(self) -> list[Package]:
        """Refuse what waits in a lane without workers, where none will come any more."""
        whole: list[Package] = []
        error = Overloaded("the engine is stopping, and no worker is left for this task", retry_after=None)
        for lane in self._lanes.values():
            if not lane.workers:
                for span in lane.clear():
                    whole += self._fail([(span.package, span.first, span.stop)], error)
        return whole

    def settle(self, now: float) -> list[Package]:
        """Answer what is too late and what was cancelled, before `dispatch`; `now` in s, monotonic."""
        self.availability.settle()
        whole = self.expire(now) if self._deadlines else []
        return whole + self.revoke() if self._touched or self._parted else whole

    def expire(self, now: float) -> list[Package]:
        """Answer what waited past its deadline with TaskTimeout; it never starts. `now` in s, monotonic."""
        late: set[Package] = set()
        while self._deadlines and self._deadlines[0][0] <= now:
            package = self.packages.get(heapq.heappop(self._deadlines)[1])
            if package is not None and package.reason is None:
                package.reason = causes.too_late()
                late.add(package)
        return self._revoke(late)

    def cancel(self, client: bytes, serial: str | None = None, positions: Sequence[int] | None = None) -> None:
        """A client does not want a package of its any more, or, without a serial, all that it has in flight.

        With positions it is these tasks, of the last package with that serial. Raises Overloaded where they lie too
        scattered.
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
        """A client has left: what can be answered to nobody else does not start, nor what waits in lanes with pins."""
        self._parted.add(client)

    def cancel_all(self, is_unwanted: Callable[[Package], bool]) -> None:
        """As `cancel`, of all packages of which that is true."""
        for package in self.packages.values():
            if is_unwanted(package) and package.cancel(None):
                self._touched.add(package)

    def revoke(self) -> list[Package]:
        """Answer what waits of packages that were cancelled as a whole, and have workers hand back theirs (`recalls`).

        Single tasks are answered when they would be handed out, and when nothing else is left of their package. To be
        called before `dispatch`.
        """
        parted, self._parted = self._parted, set()
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
        """Answer what waits of these packages, each with its reason."""
        whole: list[Package] = []
        if not packages:
            return whole
        touched = {lane for package in packages for lane, _ in package.lanes}
        for name, lane in self._lanes.items():
            for span in lane.revoke(packages) if name in touched else ():
                whole += self._fail([(span.package, span.first, span.stop)], span.package.reason or cancelled())
        return whole

    def abandon(self, error: TaskEngineError) -> list[Package]:
        """Answer everything that is in flight with `error`; the broker is of no use afterwards."""
        for lane in self._lanes.values():
            lane.workers.clear()
        owed = [(package, first, stop) for package in self.packages.values() for first, stop in package.assembly.gaps()]
        return self._fail(owed, error)

    @property
    def timed(self) -> bool:
        """A package in flight has a deadline, or a client has left since `settle`."""
        return bool(self._deadlines or self._parted)

    def stats(self, restarts: Mapping[str, int], unread: int = 0) -> Stats:
        """Return the counts and the state of each lane; `restarts` as the supervisor tells them, `unread` in bytes."""
        lanes = self.availability.stats()
        held = self._quota.bytes + self._quota.results + unread
        return self.counters.stats(lanes, len(self.packages), held, restarts)

    def idle(self) -> bool:
        """Nothing is in flight."""
        return not self.packages

    def _fill(self, lane: Lane) -> list[Batch]:
        """At most one batch for each worker of the lane that has room."""
        span = lane.next()
        free = [worker for worker in lane.workers if worker.room()] if span else []
        if not free:
            return []
        filling = Filling(free)
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

    def _sift(self, lane: Lane, span: Span, unwanted: Unwanted) -> bool:
        """Answer what is unwanted at the beginning of a span, and end it where more is; whether anything is left."""
        first, span.first = span.first, unwanted.end(span.first, span.stop)
        if first < span.first:
            lane.queued -= span.first - first
            # never the last of its package: that would have been revoked as a whole
            self._fail([(span.package, first, span.first)], cancelled())
        at = unwanted.begin(span.first, span.stop)
        if span.first < at < span.stop:
            lane.part(span, at)
        return span.first < span.stop

    def _cost(self, span: Span) -> float:
        """What the next chunk of the span is estimated to cost, in ns; unknown counts as too much to share a batch."""
        cost = self._costs.known.get(span.package.kind)
        return 2.0 * BATCH_NS if cost is None else cost * (span.end(1) - span.first)

    def _price(self, kind: TaskKind, cost: float) -> None:
        """What was handed out when its cost was unknown no longer counts as too much."""
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
        """Take an answer; the package, where it is whole now."""
        if package.put(first, stop, body):
            return [self._release(package)]
        if package.unwanted is not None and package.is_over():
            self._touched.add(package)
        return []

    def _note_deadline(self, package: Package) -> None:
        heapq.heappush(self._deadlines, (package.deadline, package.job))
        if len(self._deadlines) > 2 * len(self.packages) + _DEADLINES_SPARE:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self.packages]
            heapq.heapify(self._deadlines)

    def _backlog_s(self) -> float:
        """How long what is in flight will take, in s, about."""
        workers = max(1, len(self._workers))
        return min(max(self._quota.tasks * self._costs.mean_ns / workers / 1e9, SOONEST_RETRY_S), LATEST_RETRY_S)

    def _release(self, package: Package) -> Package:
        del self.packages[package.job]
        self.counters.release(package)
        self.serials.remove(package)
        held, is_exempt = package.assembly.held, package.is_exempt
        self._quota.give_back(package.owner, package.count, package.size, held, is_exempt=is_exempt)
        self._urgent -= package.priority == Priority.URGENT
        if not self.packages:
            self._deadlines.clear()
        return package
