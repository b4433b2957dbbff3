"""The event loop that a worker keeps for its `async def` tasks, and the coroutines that run on it.

The loop is the same for all tasks of the worker, so that a connection or a lock that one task made serves the next. It
runs while a coroutine does, and while the worker waits for work, so that what a task leaves behind goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final

from taskengine.errors import Cancelled, TaskTimeout, text_of
from taskengine.registry.registry import Task
from taskengine.worker.context import coroutine_name
from taskengine.worker.progress import TaskProgress

LAST_S: Final = 0.4
"""How long coroutines may take to end when their worker ends, in s."""


class RunningCoroutine:
    """An `async def` task from its start to its end: `task` of asyncio, under the name `name`.

    It is cancelled when it has run for `seconds` s, and when `cancel` is called.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        awaitable: Awaitable[Any],
        name: str,
        seconds: float | None,
        progress: TaskProgress | None = None,
    ) -> None:
        self.name = name
        self._seconds = seconds
        self._reason: TaskTimeout | Cancelled | None = None
        coroutine = awaitable if inspect.iscoroutine(awaitable) else _as_coroutine(awaitable)
        context = copy_context()
        context.run(coroutine_name.set, name)
        if progress is not None and progress.is_wanted:
            context.run(progress.for_coroutine)
        self.task = loop.create_task(coroutine, name=name, context=context)
        self._timer = loop.call_later(seconds, self._expire) if seconds else None

    def cancel(self) -> None:
        """Cancel the task because its caller does not want it any more; a second time does nothing."""
        if self._reason is None and not self.task.done():
            self._reason = Cancelled("the task was cancelled while it ran")
            self.task.cancel()

    def _expire(self) -> None:
        if self.task.done():
            return
        limit = f"{self._seconds:g} s"
        self._reason = TaskTimeout(
            f"{self.name} took longer than its timeout of {limit}, and was cancelled", seconds=self._seconds
        )
        self.task.cancel()

    def result(self) -> Any:
        """Return what the ended task returned, or raise what it raised.

        Raises:
            TaskTimeout: its time was over before it ended, whatever it did then.
            Cancelled: its caller cancelled it, and it ended by that.
        """
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(self._reason, TaskTimeout):
            if not self.task.cancelled():
                self.task.exception()  # asyncio would complain that nobody has asked for it
            raise self._reason
        if self._reason is not None and self.task.cancelled():
            raise self._reason
        return self.task.result()


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class EventLoop:
    """A worker's event loop; `complain` is called with a line about what tasks did to it.

    Coroutines report their `progress`.
    """

    def __init__(self, complain: Callable[[str], None], progress: TaskProgress | None = None) -> None:
        self._complain = complain
        self.progress = progress
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._tell)
        self._failure: BaseException | None = None
        self.current: RunningCoroutine | None = None
        """The coroutine that `run` runs."""

    def watch(self, descriptor: int, handle: Callable[[], None]) -> None:
        """Have `handle` called whenever the descriptor is readable while the loop runs; see `guarded`."""
        self._loop.add_reader(descriptor, self.guarded(handle))

    def ignore(self, descriptor: int) -> None:
        """Watch a descriptor no more."""
        self._loop.remove_reader(descriptor)

    def start(self, awaitable: Awaitable[Any], name: str, seconds: float | None) -> RunningCoroutine:
        """Start a coroutine in a copy of the context at hand; it may run for `seconds` s, None for ever."""
        return RunningCoroutine(self._loop, awaitable, name, seconds, self.progress)

    def run(self, awaitable: Awaitable[Any], name: str, seconds: float | None) -> Any:
        """Run a coroutine to its end; see `RunningCoroutine.result`."""
        self.current = running = self.start(awaitable, name, seconds)
        try:
            self._finish(running.task)
        finally:
            self.current = None
        return running.result()

    def callable_of(self, task: Task) -> Callable[..., Any]:
        """Return a function that runs a task, on the loop if it is an `async def`, and returns what it gives."""
        if not task.is_async:
            return task.callable
        function, name, seconds = task.callable, task.name, task.timeout

        def run(*args: Any, **kwargs: Any) -> Any:
            made = function(*args, **kwargs)
            return self.run(made, name, seconds) if inspect.isawaitable(made) else made

        return run

    def wait(self, seconds: float) -> None:
        """Run what tasks have left on the loop for `seconds` s, or until `stop`."""
        timer = self._loop.call_later(seconds, self._loop.stop)
        try:
            self._turn()
        finally:
            timer.cancel()

    def later(self, seconds: float, handle: Callable[[], None]) -> None:
        """Have the loop call `handle` in so many s, or, with 0, in its next turn; see `guarded`."""
        if seconds:
            self._loop.call_later(seconds, self.guarded(handle))
        else:
            self._loop.call_soon(self.guarded(handle))

    def soon(self, handle: Callable[[], None]) -> None:
        """Have the loop call `handle` soon; any thread may ask for that. See `guarded`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.guarded(handle))

    def guarded(self, handle: Callable[[], None]) -> Callable[..., None]:
        """Return a callback of the loop whose error is the worker's own: it ends `run` and `wait`, which raise it."""

        def call(*_: object) -> None:
            try:
                handle()
            except BaseException as error:
                self._failure = error
                self._loop.stop()

        return call

    def stop(self) -> None:
        """Have `wait` return soon."""
        self._loop.stop()

    def close(self) -> None:
        """Cancel what still runs, give it LAST_S to end, and close the loop."""
        self._failure = None
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        end = time.monotonic() + LAST_S
        while (left := asyncio.all_tasks(self._loop)) and (now := time.monotonic()) < end:
            for task in left:
                task.add_done_callback(self._end_turn)
            self.wait(end - now)
        closing = self._loop.create_task(asyncio.wait_for(self._loop.shutdown_asyncgens(), LAST_S))
        self._finish(closing)
        if closing.exception() is not None:
            self._complain("an async generator that a task left does not end")
        self._loop.close()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        """Run until the task is done."""
        task.add_done_callback(self._end_turn)
        while not task.done():
            self._turn(task)

    def _turn(self, own: asyncio.Task[Any] | None = None) -> None:
        """Run until the loop is stopped, or a coroutine ends it by SystemExit or KeyboardInterrupt, which it keeps."""
        try:
            self._loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            if own is None or not own.done():
                self._complain(f"what a task left on the event loop raised {type(error).__name__}")
        if self._failure is not None:
            raise self._failure

    def _end_turn(self, task: asyncio.Task[Any]) -> None:
        self._loop.stop()

    def _tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take what asyncio reports of the loop, such as a coroutine that failed and that nobody awaits."""
        error = context.get("exception")
        said = f": {type(error).__name__}: {text_of(error)}" if isinstance(error, BaseException) else ""
        self._complain(f"what a task left on the event loop: {context.get('message', 'an error')}{said}")
