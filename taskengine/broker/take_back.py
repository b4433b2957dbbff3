"""Decides which tasks to take back from busy workers, so that idle ones can run them. Pure.

Theory of operation. A batch was filled by estimates, and a long task holds up everything behind it. As soon as a worker
of the lane has nothing to do and nothing waits, the tasks that others have not begun are shared out again: long ones
one by one, as many as idle workers can begin at once, so that the order of ends decides who runs the next (list
scheduling, R. L. Graham, 1969); short ones by halves, since each message costs as much as many of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from taskengine.broker.tuning import WORTH_NS


class Unbegun(NamedTuple):
    """Tasks of a batch that its worker has not begun: how many, and the estimated cost of each in ns."""

    worker: str
    number: int
    tasks: int
    task_ns: float

    @property
    def work_ns(self) -> float:
        """How long they would take."""
        return self.tasks * self.task_ns


class TakeBack(NamedTuple):
    """So many of the last tasks of a batch are to be taken back."""

    worker: str
    number: int
    tasks: int


def taken_back(unbegun: Iterable[Unbegun], idle: int) -> list[TakeBack]:
    """Return what `idle` workers are to get: from the worker with the most work ahead, its last batch first.

    Short tasks whose work is not worth a message stay where they are.
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
    if batch.task_ns >= WORTH_NS:
        return 1
    if work_ns < WORTH_NS:
        return 0
    return math.ceil(batch.tasks / 2) if is_running else min(batch.tasks, math.ceil(work_ns / 2 / batch.task_ns))
