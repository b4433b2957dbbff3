"""Tells which workers have to be killed: silent, frozen in a task, overdue, or not joining. Pure.

A worker that runs a task shows by its progress that it is alive. The caller gives the kernel's view of its process, and
the time: monotonic, in s, or in ns where the name says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from taskengine.errors import TaskTimeout
from taskengine.router.worker_table import WorkerEntry, WorkerTable
from taskengine.runtime.heartbeat import HeartbeatMonitor


class Diagnosis(NamedTuple):
    """A worker that has to be killed, and why, as the log says it."""

    worker: str
    reason: str


class WorkerHealth:
    """The health of the workers in `table`, which show themselves every `interval`.

    A worker may be silent for `limit` s, and take `join_limit` s to join.
    """

    def __init__(self, table: WorkerTable, interval: float, limit: float, join_limit: float, now: float) -> None:
        self._table = table
        self._limit = limit
        self._join_limit = join_limit
        self._monitor = HeartbeatMonitor(interval, limit, now)
        self._joining = HeartbeatMonitor(interval, join_limit, now)
        """Workers that have not said hello, for the first time."""
        self._overdue: set[str] = set()
        self.timeouts: dict[str, float] = {}
        """The timeouts of tasks in s, also of tasks that a reload has left out: a worker may still run them."""
        self.heard = self._monitor.heard
        """`heard(worker, now)`: a worker has shown itself. Bound here, since each answer calls it."""

    def learn(self, timeouts: Iterable[tuple[str, float | None]]) -> None:
        """Note the timeouts of tasks, in s."""
        self.timeouts |= {task: seconds for task, seconds in timeouts if seconds}

    def expect(self, worker: str, now: float, *, joins: bool) -> None:
        """Watch a worker from now on; one that `joins` for the first time has to do so in time."""
        self._monitor.heard(worker, now)
        if joins:
            self._joining.heard(worker, now)

    def joined(self, worker: str, now: float) -> None:
        """Note that a worker has said hello."""
        self._joining.leave(worker)
        self._monitor.heard(worker, now)

    def condemned(self, worker: str) -> None:
        """Note that a worker is being killed: its silence says nothing any more."""
        self._monitor.leave(worker)

    def buried(self, worker: str, entry: WorkerEntry | None, now_ns: int) -> bool:
        """Forget a worker that is dead; return whether it died since its task was overdue.

        The task may have ended in time after all, and another one have begun.
        """
        self._monitor.leave(worker)
        self._joining.leave(worker)
        was_overdue = worker in self._overdue
        self._overdue.discard(worker)
        return was_overdue and entry is not None and entry.is_overdue(now_ns)

    def newly_overdue(self, now_ns: int) -> list[str]:
        """Return the workers whose task takes longer than it may, each once."""
        found = [worker for worker in self._table.overdue(now_ns) if worker not in self._overdue]
        self._overdue.update(found)
        return found

    def silent(self, now: float, is_stopped: Callable[[int], bool]) -> list[Diagnosis]:
        """Return the workers that have stood still for too long; to be called every interval.

        A worker may take its time in a task, unless `is_stopped` says that its process was stopped for too long.
        """
        found = []
        for worker in self._monitor.silent(now):
            if self._table.has_progressed(worker):
                self._monitor.heard(worker, now)
                continue
            at_task = self._table.is_at_task(worker)
            if at_task and not self._monitor.is_frozen(worker, now, stopped=is_stopped(self._table.pid_of(worker))):
                continue
            what = "stopped in a task" if at_task else "silent"
            found.append(Diagnosis(worker, f"{worker} has been {what} for more than {self._limit:g} s"))
        return found

    def late_to_join(self, now: float) -> list[Diagnosis]:
        """Return the workers that have not joined in time, each once; to be called every interval."""
        found = self._joining.silent(now)
        for worker in found:
            self._joining.leave(worker)
        return [Diagnosis(worker, f"{worker} has not joined in {self._join_limit:g} s") for worker in found]

    def timed_out(self, task: str) -> TaskTimeout:
        """Return the error of a task that was overdue."""
        seconds = self.timeouts.get(task)
        limit = f" of {seconds:g} s" if seconds else ""
        return TaskTimeout(
            f"{task} took longer than its timeout{limit}, and was ended with its worker", seconds=seconds
        )
