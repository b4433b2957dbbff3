"""The work of a worker with `async def` tasks: it waits on its event loop, and runs one batch at a time.

While a coroutine runs, the loop also takes what the router and the supervisor send, so that the coroutine can be
cancelled; batches and orders wait until it has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from taskengine._fastpath import ProgressPage
from taskengine.broker.workers import UnwantedTasks
from taskengine.registry.registry import Task
from taskengine.runtime.control import Order, RejoinRouter, StopProcess
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.log_buffer import PAUSE_MS, LogBuffer
from taskengine.worker.event_loop import EventLoop
from taskengine.worker.router_connection import RouterConnection
from taskengine.worker.stream_link import StreamLink
from taskengine.worker.streams import TaskStreams


class AsyncWork:
    """The loop of a worker that has an event loop. `page` says which task runs."""

    def __init__(
        self, loop: EventLoop, control: ControlChannel, log: LogBuffer, page: ProgressPage, streams: TaskStreams
    ) -> None:
        self._loop = loop
        self._control = control
        self._log = log
        self._page = page
        self._streams = streams
        self._batches: deque[bytes] = deque()
        self._orders: deque[Order | None] = deque()
        self._watched: int | None = None

    def callable_of(self, task: Task) -> Callable[..., Any]:
        """Return a function that runs a task to its end."""
        return self._loop.callable_of(task)

    def work(
        self, router: RouterConnection, run: Callable[[bytes], bytes], note: Callable[[bytes, bytes], None]
    ) -> None:
        """Work until the supervisor says stop, or is gone.

        Batches from `router` run by `run`, whose functions are those of `callable_of`; `note` is called with each and
        its answer.
        """
        self._router = router
        self._run = run
        self._note = note
        link = StreamLink(self._streams, router, self._control, self._log, self._batches, self._cancel)
        self._streams.connect(self._send_value, link.wait)
        if self._loop.progress is not None:
            self._loop.progress.connect(self._send_report, self._loop.soon)
        self._loop.watch(self._control.fileno(), self._take_order)
        self._watch()
        try:
            while self._step():
                pass
        finally:
            self._loop.close()

    def _step(self) -> bool:
        """Do what is next; return whether to go on."""
        self._receive()  # the descriptor may not tell of what came before we sent
        if self._orders:
            # before a batch, which may be one of a router that is gone
            order = self._orders.popleft()
            if isinstance(order, RejoinRouter):
                self._router.rejoin()
                self._on_new_connection()
            return not isinstance(order, StopProcess)
        if self._batches:
            batch = self._batches.popleft()
            answer = self._run(batch)
            self._router.send(answer)
            self._note(batch, answer)
            return True
        self._pause((PAUSE_MS if self._log.pending else self._router.interval_ms) / 1000)
        if not (self._batches or self._orders):
            self._log.flush()
            if self._router.beat():
                self._on_new_connection()
        return True

    def _pause(self, seconds: float) -> None:
        self._loop.wait(seconds)

    def _on_new_connection(self) -> None:
        """Drop what came by the last connection and was not begun, and close the generators that it began.

        What is left of its coroutines reports no more.
        """
        self._batches.clear()
        self._streams.end()
        if self._loop.progress is not None:
            self._loop.progress.rejoined()
        self._watch()

    def _watch(self) -> None:
        """Watch the connection to the router, which may be a new one."""
        if self._watched is not None:
            self._loop.ignore(self._watched)
        self._watched = self._router.descriptor
        self._loop.watch(self._watched, self._receive)

    def _send_value(self, job: int, number: int, body: bytes) -> None:
        self._router.send_value(job, number, body)
        self._loop.later(0.0, self._receive)  # the descriptor may not tell of what came before we sent

    def _send_report(self, job: int, position: int, report: bytes) -> None:
        self._router.send_progress(job, position, report)
        self._loop.later(0.0, self._receive)  # as behind a value

    def _receive(self) -> None:
        self._router.collect(self._batches, self._cancel, self._streams.grant)
        if self._batches:
            self._loop.stop()

    def _take_order(self) -> None:
        order = self._control.next_order()
        self._orders.append(order)
        self._streams.end()
        if isinstance(order, StopProcess):
            self._loop.ignore(self._control.fileno())  # which stays readable where the supervisor is gone
            if self._loop.current is not None:
                self._loop.current.cancel()
        self._loop.stop()

    def _cancel(self, unwanted: UnwantedTasks) -> None:
        """Cancel the coroutine or generator that runs, if it is one of these tasks."""
        if self._loop.current is None:
            self._streams.cancel(unwanted)
        if self._loop.current is None or (running := self._page.running_task) is None:
            return
        if any(job == running[0] and first <= running[1] < stop for job, first, stop in unwanted):
            self._loop.current.cancel()
