"""The futures of submitted calls in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from taskengine.client.reports import Listener
from taskengine.client.task_future import TaskFuture
from taskengine.protocol.progress import Progress


class AsyncTaskFuture(asyncio.Future[Any]):
    """The future of a `call` that was submitted, for the event loop at hand; cancelling it cancels the call."""

    def __init__(self, call: TaskFuture) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._call = call
        self.add_done_callback(AsyncTaskFuture._retract)
        call.add_done_callback(in_loop(self._take))

    def progress(self) -> Progress | None:
        """Return what the task said last of its progress, None if it has said nothing; see `TaskFuture.progress`."""
        return self._call.progress()

    def add_progress_callback(self, listener: Listener) -> None:
        """Have the event loop call a function with each report; see `TaskFuture.add_progress_callback`."""
        self._call.add_progress_callback(in_loop(listener))

    def _retract(self) -> None:
        if self.cancelled():
            self._call.cancel()

    def _take(self, _: Future[Any]) -> None:
        if self.done():
            return
        if self._call.cancelled():
            self.cancel()
        elif (error := self._call.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(self._call.result())


def in_loop(function: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return a function, for any thread, that has the event loop at hand call the given one."""
    loop = asyncio.get_running_loop()

    def tell(what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(function, what)

    return tell
