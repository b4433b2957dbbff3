"""Takes tasks that busy workers have not begun back, where idle ones of the lane could run them. Pure.

Theory of operation. A batch was filled by estimates, and a long task holds up everything behind it. As soon as a worker
of the lane has nothing to do and nothing waits, it gets half of what the busiest other one has not begun, from the end
(work stealing, R. D. Blumofe and C. E. Leiserson, 1999). It may have to give half of that again: what a task will take
is not known, so that each step only halves the mistake.

A worker claims tasks before it runs them (see `_claim.h`); `unclaimed` says how many of a batch it has not, and the
router takes some of those from the worker before it tells `Balancer.take_back`. A lane with one worker keeps its order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from taskengine.broker.lane import Lane, LaneWorker, Slice, tasks_in
from taskengine.broker.tuning import WORTH_NS
from taskengine.broker.workers import Workers
from taskengine.protocol.layouts import Format


class Unbegun(NamedTuple):
    """Tasks of a batch that its worker has not begun: how many, and the estimated cost of each in ns."""

    worker: str
    number: int
    tasks: int
    task_ns: float

    @property
    def work_ns(self) -> float:
        """Return how long they would take."""
        return self.tasks * self.task_ns


class TakeBack(NamedTuple):
    """An action: take back so many of the last tasks of a batch."""

    worker: str
    number: int
    tasks: int


class Balancer:
    """Watches the lanes for idle workers beside busy ones."""

    def __init__(self, lanes: Mapping[str, Lane], workers: Workers) -> None:
        self._lanes = lanes
        self._workers = workers

    def uneven(self) -> list[str]:
        """Return the lanes in which a worker is idle while another holds tasks that it may not have begun."""
        uneven = [
            name for name, lane in self._lanes.items() if lane.slice_ns and not lane.queued and _is_uneven(name, lane)
        ]
        self._workers.has_idle = bool(uneven)
        return uneven

    def plan(self, lanes: Iterable[str], unclaimed: Callable[[str, int], int], now: float) -> list[TakeBack]:
        """Return what to take back in these lanes at `now`; where there is nothing to take they are even."""
        takes: list[TakeBack] = []
        self._workers.has_idle = False
        for name in lanes:
            lane = self._lanes[name]
            unbegun = [
                batch for worker in lane.workers for batch in _unbegun(name, worker, unclaimed, now) if batch.tasks
            ]
            idle = sum(not worker.batches and worker.room() for worker in lane.workers)
            whole = (self._in_whole_chunks(take) for take in taken_back(unbegun, idle))
            takes += [take for take in whole if take.tasks]
            # what is not worth it now may prove to be long
            self._workers.has_idle = self._workers.has_idle or bool(unbegun)
        return takes

    def _in_whole_chunks(self, take: TakeBack) -> TakeBack:
        """Return what to take so that no chunk of wire 0.1 is divided: each gets one DATA frame, claimed as a whole.

        A worker that would be left with nothing keeps one: otherwise two workers would change places without end.
        """
        worker = self._workers[take.worker]
        slices = worker.batches[take.number - worker.first]
        left = tasks_in(slices) - take.tasks
        for slice in slices:
            tasks = slice.stop - slice.first
            if left < tasks:
                at = slice.first + left
                if slice.package.format != Format.LEGACY_JSON:
                    return take
                number, cut = slice.run.cut.number(at), slice.run.cut
                begin = max(cut.start(number), slice.first)
                if len(worker.batches) == 1 and slice is slices[0] and begin == slice.first:
                    begin = min(cut.start(number + 1), slice.stop)
                return take._replace(tasks=take.tasks + at - begin)
            left -= tasks
        return take

    def take_back(self, name: str, number: int, left: int) -> list[Slice]:
        """Leave a worker's batch so many tasks; return the others, which it will not run."""
        worker = self._workers.get(name)
        place = -1 if worker is None else number - worker.first
        if worker is None or not 0 <= place < len(worker.batches):
            return []
        kept: list[Slice] = []
        taken: list[Slice] = []
        for slice in worker.batches[place]:
            tasks = slice.stop - slice.first
            if left >= tasks:
                kept.append(slice)
            elif left > 0:
                kept.append(slice.between(slice.first, slice.first + left))
                taken.append(slice.between(slice.first + left, slice.stop))
            else:
                taken.append(slice)
            left -= tasks
        worker.batches[place][:] = kept
        worker.weigh()
        return taken


def _is_uneven(name: str, lane: Lane) -> bool:
    is_idle = has_more = False
    for worker in lane.workers:
        batches = worker.batches
        if not batches:
            is_idle = is_idle or worker.room()
        elif batches[0] and batches[0][0].run.lane == name:
            slices = batches[0]
            has_more = has_more or len(batches) > 1 or len(slices) > 1 or slices[0].stop - slices[0].first > 1
    return is_idle and has_more


def _unbegun(name: str, worker: LaneWorker, unclaimed: Callable[[str, int], int], now: float) -> Iterable[Unbegun]:
    """Yield what a worker has not begun of a lane's tasks.

    The task at hand and those before it say how long the next may take, whatever was estimated.
    """
    for number, slices in enumerate(worker.batches, worker.first):
        if not slices or slices[0].run.lane != name:
            continue
        tasks = tasks_in(slices)
        left = min(unclaimed(worker.name, number), tasks)
        task_ns = sum(slice.cost for slice in slices) / tasks
        if number == worker.first:
            task_ns = max(task_ns, (now - worker.since) * 1e9 / max(tasks - left, 1))
        yield Unbegun(worker.name, number, left, task_ns)


def taken_back(unbegun: Iterable[Unbegun], idle: int) -> list[TakeBack]:
    """Return what `idle` workers are to get: half of what the worker with the most work has, its last batch first.

    Work that is not worth a message stays where it is.
    """
    by_worker: dict[str, list[Unbegun]] = {}
    for batch in unbegun:
        if batch.tasks:
            by_worker.setdefault(batch.worker, []).append(batch)
    takes: dict[tuple[str, int], int] = {}
    for _ in range(idle):
        if not by_worker:
            break
        busiest = max(by_worker, key=lambda worker: sum(batch.work_ns for batch in by_worker[worker]))
        batches = by_worker[busiest]
        last = max(batches, key=lambda batch: batch.number)
        share = _share(last, sum(batch.work_ns for batch in batches), is_running=len(batches) == 1)
        if not share:
            break
        takes[last.worker, last.number] = takes.get((last.worker, last.number), 0) + share
        batches.remove(last)
        if last.tasks > share:
            batches.append(last._replace(tasks=last.tasks - share))
        if not batches:
            del by_worker[busiest]
    return [TakeBack(worker, number, tasks) for (worker, number), tasks in takes.items()]


def _share(batch: Unbegun, work_ns: float, *, is_running: bool) -> int:
    """Return how many tasks of a batch one idle worker gets, of a worker that has `work_ns` of work ahead."""
    if work_ns < WORTH_NS:
        return 0
    half = math.ceil(batch.tasks / 2)
    return half if is_running else min(batch.tasks, max(1, math.ceil(min(work_ns / 2 / batch.task_ns, batch.tasks))))
