"""The work of a worker of a concurrent lane: it starts each task when it comes, and answers when the task has ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

from taskengine._fastpath import CallTable, ProgressPage
from taskengine.broker.workers import UnwantedTasks
from taskengine.registry.registry import Task
from taskengine.runtime.control_channel import ControlChannel
from taskengine.runtime.log_buffer import PAUSE_MS, LogBuffer
from taskengine.worker.async_work import AsyncWork
from taskengine.worker.concurrent_calls import Call, ConcurrentCalls
from taskengine.worker.event_loop import EventLoop
from taskengine.worker.router_connection import RouterConnection
from taskengine.worker.streams import TaskStreams

BLOCKED_S: Final = 1.0
"""How much later than it should the loop turns where a line tells that a task has blocked it."""
NAMES_TOLD: Final = 3
"""How many running tasks that line names at most."""


class ConcurrentWork(AsyncWork):
    """The loop of a worker that runs up to `most` tasks at once, as coroutines beside each other."""

    def __init__(
        self,
        loop: EventLoop,
        control: ControlChannel,
        log: LogBuffer,
        page: ProgressPage,
        streams: TaskStreams,
        most: int,
    ) -> None:
        super().__init__(loop, control, log, page, streams)
        self._calls = ConcurrentCalls(loop, CallTable(page), most)
        streams.task_at_hand = self._calls.task_at_hand
        self._flushes = False

    def callable_of(self, task: Task) -> Callable[..., Any]:
        """Return a function that starts a task, and later gives what the task gave."""
        return self._calls.starter(task)

    def work(
        self, router: RouterConnection, run: Callable[[bytes], bytes], note: Callable[[bytes, bytes], None]
    ) -> None:
        """Work until the supervisor says stop, or is gone; see `AsyncWork.work`."""
        self._calls.connect(run, self._send)
        super().work(router, run, note)

    def _send(self, call: Call, answer: bytes) -> None:
        """Answer a call."""
        self._router.send_numbered(call.number, answer)
        self._note(call.batch, answer)
        self._loop.later(0.0, self._receive)  # the descriptor may not tell of what came before we sent
        if not self._flushes:
            self._flushes = True
            self._loop.later(PAUSE_MS / 1000, self._flush)

    def _flush(self) -> None:
        self._flushes = False
        self._log.flush()

    def _receive(self) -> None:
        self._router.collect(self._batches, self._cancel, self._streams.grant)
        while self._batches:
            self._calls.start(self._batches.popleft())
        # a task that blocks the loop is not taken for a worker that hangs
        self._page.busy(busy=self._calls.count > 0)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        super()._pause(seconds)
        late = time.monotonic() - end
        if late > BLOCKED_S:
            names = self._calls.names()[:NAMES_TOLD]
            what = f"; {', '.join(names)} ran" if names else ""
            self._warn(f"The event loop was blocked for {late:.1f} s by what did not await{what}")

    def _warn(self, text: str) -> None:
        self._log.warn(f"[WORKER-{os.getpid()}(TASK)] {text}")

    def _cancel(self, unwanted: UnwantedTasks) -> None:
        self._calls.cancel(unwanted)
        self._streams.cancel(unwanted)

    def _on_new_connection(self) -> None:
        self._calls.forget()
        super()._on_new_connection()
