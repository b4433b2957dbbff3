"""What the tasks of this process say of their progress, on its way to the router.

Reports are sent by the worker's own thread, which has the socket, and only where the client of the task wants them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from taskengine.protocol.progress import WORKER_BURST, WORKER_RATE, Pace, as_progress, write_report
from taskengine.worker.context import coroutine_name


class Reporter:
    """The way of the reports of one task, at `position` of a job that the router of an `epoch` gave.

    All tasks together keep the pace `of_all`.
    """

    __slots__ = ("_of_all", "_pace", "_send", "epoch", "job", "position")

    def __init__(
        self, job: int, position: int, epoch: int, send: Callable[[Reporter, bytes], None], of_all: Pace
    ) -> None:
        self.job = job
        self.position = position
        self.epoch = epoch
        self._send = send
        self._pace = Pace()
        self._of_all = of_all

    def report(self, done: Any, total: Any, message: Any) -> None:
        """Send a report, unless many were sent just before it. Raises BadArguments."""
        said = as_progress(done, total, message)
        now = time.monotonic()
        if self._pace.allows(now) and self._of_all.allows(now):
            self._send(self, write_report(self.position, said))


class _Here:
    """The reports of this process, if it is a worker."""

    reports: TaskProgress | None = None


_of_coroutine: ContextVar[Reporter | None] = ContextVar("reporter", default=None)
"""The reporter of the coroutine that runs, None where nobody wants its reports."""


class TaskProgress:
    """The reports of a worker's tasks; `task_at_hand` gives the job and the position of the task that is being called.

    It is made in the thread that runs the tasks.
    """

    def __init__(self, task_at_hand: Callable[[], tuple[int, int] | None]) -> None:
        self._task_at_hand = task_at_hand
        self.is_wanted = False
        """Whether the client of the task that is being called wants them."""
        self._thread = threading.get_ident()
        self._last: Reporter | None = None
        self._epoch = 0
        """How many routers the worker has joined after its first: each numbers its jobs anew."""
        self._pace = Pace(WORKER_RATE, WORKER_BURST)
        self._send: Callable[[int, int, bytes], None] | None = None
        self._defer: Callable[[Callable[[], None]], None] | None = None

    def connect(
        self,
        send: Callable[[int, int, bytes], None],
        defer: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """Serve this process: send by `send`, with job and position; `defer` has the worker's thread call a function.

        Without `defer`, what other threads report has no effect.
        """
        self._send, self._defer = send, defer
        _Here.reports = self

    def rejoined(self) -> None:
        """Drop what tasks of the last router still say: the worker has joined another, which numbers its jobs anew."""
        self._epoch += 1
        self._last = None

    def reporter(self) -> Reporter | None:
        """Return the reporter of the task that is being called, None where nobody wants its reports."""
        if not self.is_wanted or (task := self._task_at_hand()) is None:
            return None
        last = self._last
        if last is None or (last.job, last.position) != task:
            self._last = last = Reporter(*task, self._epoch, self._dispatch, self._pace)
        return last

    def is_own_thread(self) -> bool:
        """Return whether the thread at hand is the one that runs tasks."""
        return threading.get_ident() == self._thread

    def for_coroutine(self) -> None:
        """Have the coroutine whose context is at hand report as the task that is being called."""
        _of_coroutine.set(self.reporter())

    def _dispatch(self, reporter: Reporter, report: bytes) -> None:
        if self._send is None:
            return
        if self.is_own_thread():
            self._send_from(reporter, report)
        elif self._defer is not None:
            self._defer(lambda: self._send_from(reporter, report))

    def _send_from(self, reporter: Reporter, report: bytes) -> None:
        """Send a report, in the worker's thread, unless it is of a task of an earlier router."""
        if self._send is not None and reporter.epoch == self._epoch:
            self._send(reporter.job, reporter.position, report)

    def disconnect(self) -> None:
        """Send nothing any more: the process is another one now, and the socket its parent's."""
        self._send = None


def progress(done: Any, total: Any = None, message: str = "") -> None:
    """Say how far the task at hand is: `done` of `total`, numbers of whatever it counts, and what it does, in words.

    The client that called it gets the newest report soon, if it wants any; the task never waits for that. After the
    first ten at most 20 a second are sent, so that a loop may report each turn. Where nobody wants to know, as outside
    of a worker, nothing is done. In a thread that a task starts it has no effect, except below `asyncio.to_thread`.

    Raises BadArguments for what is no finite number, and for a message that is no text, if the client wants reports.
    """
    if coroutine_name.get():
        reporter = _of_coroutine.get()
    else:
        reports = _Here.reports
        if reports is None or not reports.is_wanted or not reports.is_own_thread():
            return
        reporter = reports.reporter()
    if reporter is not None:
        reporter.report(done, total, message)


def _disown() -> None:
    if _Here.reports is not None:
        _Here.reports.disconnect()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_disown)
