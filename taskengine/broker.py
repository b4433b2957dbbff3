"""Who runs what: packages, lanes and workers, as a pure state machine.

Theory of operation. `accept` cuts a package into runs of chunks and queues the runs in their lanes. `dispatch` hands
out chunks one by one, each to the worker with the least work before it, and returns one batch for each worker that
got any. `finish` takes a worker's answer to its oldest batch; `leave` takes a worker's death. Both return the
packages that are whole now, and every accepted package is returned exactly once.

A batch holds about `BATCH_NS` of work by a moving estimate of a task's cost, and at most `IN_FLIGHT` batches wait at
a worker; a batch whose cost is unknown or large travels alone, so that nothing small is stuck behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from taskengine.errors import Overloaded, ProtocolError, TaskEngineError, TaskTimeout, WorkerLost
from taskengine.package import Package, Run
from taskengine.wire import BATCH_NS, COSTS_KEPT, IN_FLIGHT, NO_DEADLINE, PRIORITIES

_COST_WEIGHT = 0.5
_load = attrgetter("load")


class Chunk(NamedTuple):
    """Part `part` of `package`, `count` tasks, estimated to cost `cost` ns."""

    package: Package
    part: int
    first: int
    stop: int
    cost: float


class Batch(NamedTuple):
    """Chunks that travel to `worker` in one message."""

    worker: str
    chunks: list[Chunk]


Answered = tuple[int, int, int, int, bytes]
"""One chunk's entry in a worker's answer: job, part, tasks that failed, elapsed ns, body."""


class _Span:
    """What is left to hand out of a run: parts from `next`, tasks from `first`."""

    __slots__ = ("_size", "_smaller", "first", "next", "package", "stop")

    def __init__(self, package: Package, run: Run) -> None:
        size, larger = divmod(run.tasks.tasks, run.tasks.chunks)
        self.package = package
        self.next = run.part
        self.stop = run.part + run.tasks.chunks
        self.first = run.first
        self._size = size
        self._smaller = run.part + larger

    def tasks(self) -> int:
        """How many tasks are in the next chunk."""
        return self._size + (self.next < self._smaller)

    def take(self, cost: float) -> Chunk:
        """The next chunk, estimated to cost `cost` ns."""
        part, first = self.next, self.first
        self.first += self.tasks()
        self.next += 1
        return Chunk(self.package, part, first, self.first, cost)


class _Worker:
    __slots__ = ("batches", "lane", "load", "name")

    def __init__(self, name: str, lane: str) -> None:
        self.name = name
        self.lane = lane
        self.load = 0.0
        self.batches: deque[list[Chunk]] = deque()

    def room(self) -> bool:
        return not self.batches or (len(self.batches) < IN_FLIGHT and self.load < 2 * BATCH_NS)


class _Lane:
    def __init__(self) -> None:
        self.workers: list[_Worker] = []
        self.queues: tuple[deque[_Span], ...] = tuple(deque() for _ in range(PRIORITIES))

    def queue(self) -> deque[_Span] | None:
        """The most urgent queue that holds anything."""
        return next((queue for queue in reversed(self.queues) if queue), None)

    def spans(self) -> Iterator[_Span]:
        return (span for queue in self.queues for span in queue)


class Broker:
    """The state of the router. `size` is CHUNKING_SIZE or None; `lanes` the number of workers of each lane."""

    def __init__(self, size: int | None, lanes: dict[str, int]) -> None:
        self._size = size
        self._sizes = lanes
        self._lanes = {name: _Lane() for name in lanes}
        self._workers: dict[str, _Worker] = {}
        self._costs: dict[bytes, float] = {}
        self._jobs = 0
        self._deadlines = 0
        self.packages: dict[int, Package] = {}
        self.stopping = False

    def accept(self, package: Package) -> bool:
        """Own the package from here on; True where it is whole already, having no tasks.

        Raises Overloaded when the engine is stopping, or a lane of the package has no workers configured.
        """
        if self.stopping:
            raise Overloaded("the engine is stopping", retry_after=None)
        for lane, _ in package.lanes:
            if lane not in self._lanes:
                raise Overloaded(f"no worker serves lane {lane!r}", retry_after=None)
        package.cut(self._size, self._sizes)
        if not package.parts:
            return True
        self._jobs += 1
        package.job = self._jobs
        self.packages[package.job] = package
        self._deadlines += package.deadline != NO_DEADLINE
        for run in package.runs:
            self._lanes[run.lane].queues[package.priority].append(_Span(package, run))
        return False

    def join(self, name: str, lane: str) -> None:
        """A worker is ready. Raises ProtocolError for a lane that is not configured or a name in use."""
        if lane not in self._lanes:
            raise ProtocolError(f"worker {name} asks for lane {lane!r}, which is not configured")
        if name in self._workers:
            raise ProtocolError(f"worker {name} has joined already")
        worker = self._workers[name] = _Worker(name, lane)
        self._lanes[lane].workers.append(worker)

    def leave(self, name: str) -> list[Package]:
        """A worker is dead: what it held is answered with WorkerLost."""
        worker = self._workers.pop(name, None)
        if worker is None:
            return []
        self._lanes[worker.lane].workers.remove(worker)
        error = WorkerLost(f"worker {name} died with this task in its hands", worker=name)
        held = [chunk for batch in worker.batches for chunk in batch]
        return self._fail(((chunk.package, chunk.part) for chunk in held), error)

    def dispatch(self) -> list[Batch]:
        """Hand out what there is room for: at most one batch for each worker, so ask again until there is none."""
        return [batch for lane in self._lanes.values() for batch in self._dispatch_lane(lane)]

    def finish(self, name: str, entries: Sequence[Answered]) -> list[Package]:
        """Take a worker's answer to its oldest batch. Raises ProtocolError for an answer that was not asked for."""
        worker = self._workers.get(name)
        if worker is None or not worker.batches:
            raise ProtocolError(f"worker {name} answered what nobody asked")
        chunks = worker.batches[0]
        if [(chunk.package.job, chunk.part) for chunk in chunks] != [answer[:2] for answer in entries]:
            raise ProtocolError(f"worker {name} answered other chunks than it was given")
        worker.batches.popleft()
        worker.load = sum(chunk.cost for batch in worker.batches for chunk in batch)
        whole: list[Package] = []
        spent: dict[bytes, tuple[int, int]] = {}
        for (package, part, first, stop, _), (_, _, failed, elapsed_ns, body) in zip(chunks, entries, strict=True):
            tasks, elapsed = spent.get(package.kind, (0, 0))
            spent[package.kind] = tasks + stop - first, elapsed + elapsed_ns
            package.worker = name
            package.failed += failed
            if package.assembly.put(part, body):
                whole.append(self._release(package))
        for kind, (tasks, elapsed) in spent.items():
            self._learn(kind, tasks, elapsed)
        return whole

    def expire(self, now: float) -> list[Package]:
        """Answer what waited past its deadline with TaskTimeout; it never starts. `now` in s, monotonic."""
        if not self._deadlines:
            return []
        late = [span for lane in self._lanes.values() for span in lane.spans() if span.package.deadline <= now]
        return self._drop(late, TaskTimeout("the deadline passed before the task could start", seconds=None))

    def abandon(self, error: TaskEngineError) -> list[Package]:
        """Answer everything that is in flight with `error`; the broker is of no use afterwards."""
        for lane in self._lanes.values():
            lane.workers.clear()
        owed = [
            (package, part)
            for package in self.packages.values()
            for part in range(1, package.parts + 1)
            if not package.assembly.has(part)
        ]
        return self._fail(owed, error)

    @property
    def timed(self) -> bool:
        """A package in flight has a deadline."""
        return self._deadlines > 0

    def idle(self) -> bool:
        """Nothing is in flight."""
        return not self.packages

    def _dispatch_lane(self, lane: _Lane) -> Iterable[Batch]:
        queue = lane.queue()
        free = [worker for worker in lane.workers if worker.room()] if queue else []
        filled: dict[_Worker, list[Chunk]] = {}
        fresh = dict.fromkeys(free, 0.0)
        fair = len(lane.workers) > 1  # packages take turns, unless their order is promised
        while queue and free:
            worker = min(free, key=_load)
            cost = self._cost(queue[0])
            if cost >= BATCH_NS and worker in filled:
                free.remove(worker)  # what is in the batch would wait for this chunk to be answered
                continue
            filled.setdefault(worker, []).append(queue[0].take(cost))
            worker.load += cost
            fresh[worker] += cost
            if fresh[worker] >= BATCH_NS:
                free.remove(worker)
            if queue[0].next == queue[0].stop:
                queue.popleft()
                queue = queue or lane.queue()
            elif fair:
                queue.rotate(-1)
        for worker, chunks in filled.items():
            worker.batches.append(chunks)
            yield Batch(worker.name, chunks)

    def _cost(self, span: _Span) -> float:
        """What the next chunk of the span is estimated to cost, in ns; unknown counts as too much to share a batch."""
        cost = self._costs.get(span.package.kind)
        return 2.0 * BATCH_NS if cost is None else cost * span.tasks()

    def _learn(self, kind: bytes, tasks: int, elapsed_ns: int) -> None:
        cost = elapsed_ns / tasks
        known = self._costs.get(kind)
        if known is None and len(self._costs) >= COSTS_KEPT:
            self._costs.pop(next(iter(self._costs)))
        self._costs[kind] = cost if known is None else known + _COST_WEIGHT * (cost - known)
        if known is None:
            self._price(kind, cost)

    def _price(self, kind: bytes, cost: float) -> None:
        """What was handed out when its cost was unknown no longer counts as too much."""
        for worker in self._workers.values():
            for batch in worker.batches:
                batch[:] = [
                    chunk._replace(cost=cost * (chunk.stop - chunk.first)) if chunk.package.kind == kind else chunk
                    for chunk in batch
                ]
            worker.load = sum(chunk.cost for batch in worker.batches for chunk in batch)

    def _drop(self, spans: list[_Span], error: TaskEngineError) -> list[Package]:
        gone = set(spans)
        for lane in self._lanes.values():
            for queue in lane.queues:
                kept = [span for span in queue if span not in gone]
                queue.clear()
                queue.extend(kept)
        return self._fail(((span.package, part) for span in spans for part in range(span.next, span.stop)), error)

    def _fail(self, parts: Iterable[tuple[Package, int]], error: TaskEngineError) -> list[Package]:
        whole = []
        for package, part in parts:
            first, stop = package.bounds(part)
            package.failed += stop - first
            if package.assembly.put(part, package.errors(first, stop, error)):
                whole.append(self._release(package))
        return whole

    def _release(self, package: Package) -> Package:
        del self.packages[package.job]
        self._deadlines -= package.deadline != NO_DEADLINE
        return package
