"""Generator tasks: sends each value as it is yielded, as far as the client has granted credit, or lists all for a call.

A generator is advanced only when its next value may be sent, so that it pauses while the client does not read. It is
closed, so that its `finally` runs, when its client wants no more, when its timeout is over, and when its worker ends.
What is for one generator costs no other task anything: the functions that the worker's turn calls are made at load.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any

import msgspec

from taskengine._fastpath import encode
from taskengine.broker.workers import UnwantedTasks
from taskengine.errors import BadArguments, Cancelled, TaskEngineError, TaskFailed, TaskTimeout
from taskengine.protocol.credit import Credit, Grant
from taskengine.protocol.limits import MAX_BODY
from taskengine.registry.registry import Task
from taskengine.worker.tuning import MOST_LISTED, STREAM_LOOK_S

if TYPE_CHECKING:
    import asyncio


class OpenGenerator:
    """A generator task that runs, as the task at `position` of a job; it has no `credit` if it is listed."""

    def __init__(self, job: int, position: int, credit: Credit | None) -> None:
        self.job = job
        self.position = position
        self.credit = credit
        self.reason: TaskEngineError | None = None
        """Why it is to be closed."""
        self.news: asyncio.Future[None] | None = None
        """Done when its credit or its reason has changed, if it waits on an event loop for that."""

    def may_go_on(self) -> bool:
        """Return whether it may yield its next value. Raises the reason for which it is to be closed."""
        if self.reason is not None:
            raise self.reason
        return self.credit is None or self.credit.may_send()

    def tell(self) -> None:
        """Have it look at its credit and its reason."""
        if self.news is not None and not self.news.done():
            self.news.set_result(None)


class _List:
    """The values of a generator that is called."""

    def __init__(self, name: str) -> None:
        self.values: list[Any] = []
        self._name = name
        self._size = 0

    def add(self, value: Any) -> None:
        """Append a value. Raises BadArguments for more than one answer holds."""
        self._size += len(encode(value, True))
        if len(self.values) >= MOST_LISTED or self._size > MAX_BODY:
            text = f"{self._name} yields more than {MOST_LISTED} values, or {MAX_BODY} bytes: `stream` it"
            raise BadArguments(text, name=self._name)
        self.values.append(value)


class TaskStreams:
    """The generators of a worker; `task_at_hand` gives the job and the position of the task that is being called."""

    def __init__(self, task_at_hand: Callable[[], tuple[int, int] | None]) -> None:
        self.task_at_hand = task_at_hand
        self.grant_at_hand = Grant(1, 1)
        """The credit of the stream that is being called,"""
        self.takes_values = False
        """and whether its client takes Python's other values."""
        self._open: dict[tuple[int, int], OpenGenerator] = {}
        self._send: Callable[[int, int, bytes], None] = _unconnected
        self._wait: Callable[[float], None] = _unconnected

    def connect(self, send: Callable[[int, int, bytes], None], wait: Callable[[float], None]) -> None:
        """Send values by `send`, with job and number; `wait` takes what comes for up to so many s."""
        self._send, self._wait = send, wait

    def listed(self, task: Task) -> Task:
        """Return the task as one that returns a list of what the generator yields; another task as it is."""
        if not task.is_generator:
            return task

        def make(generator: Any) -> Any:
            values = _List(task.name)
            return self._run(task, generator, self._opened(None), values.add, values.values)

        return _with_function(task, make, lambda made: made)

    def sent(self, task: Task) -> Task:
        """Return the task as one that sends what the generator yields; another one then refuses to be called."""
        refuse = functools.partial(_refuse, task.name)
        if not task.is_generator:
            return msgspec.structs.replace(task, function=refuse, call=None)

        def make(generator: Any) -> Any:
            credit = Credit(self.grant_at_hand)
            opened = self._opened(credit)
            return self._run(
                task, generator, opened, functools.partial(self._emit, opened.job, credit, self.takes_values), None
            )

        return _with_function(task, make, refuse)

    def grant(self, job: int, grant: Grant) -> None:
        """Take more credit for the stream of a job, which may have ended."""
        opened = self._open.get((job, 0))
        if opened is not None and opened.credit is not None and opened.credit.extend(grant):
            opened.tell()

    def cancel(self, unwanted: UnwantedTasks) -> None:
        """Close those of the generators that are among these tasks."""
        for opened in self._open.values():
            if any(job == opened.job and first <= opened.position < stop for job, first, stop in unwanted):
                self._end(opened, Cancelled("the task was cancelled while it ran"))

    def end(self) -> None:
        """Close all generators: the worker ends, or has another router."""
        for opened in self._open.values():
            self._end(opened, Cancelled("the task was closed because its worker ends, or has another router"))

    def _end(self, opened: OpenGenerator, reason: TaskEngineError) -> None:
        opened.reason = opened.reason or reason
        opened.tell()

    def _opened(self, credit: Credit | None) -> OpenGenerator:
        job, position = self.task_at_hand() or (0, 0)
        opened = OpenGenerator(job, position, credit)
        self._open[job, position] = opened
        return opened

    def _forget(self, opened: OpenGenerator) -> None:
        """Remove a generator that ends, and say that all its values were sent.

        Another router's generator may have its job number by then.
        """
        if self._open.get((opened.job, opened.position)) is opened:
            del self._open[opened.job, opened.position]
        if opened.credit is not None and opened.reason is None:
            self._send(opened.job, opened.credit.values, b"")

    def _emit(self, job: int, credit: Credit, takes_values: bool, value: Any) -> None:
        """Send a value. Raises TaskFailed for one that cannot be sent."""
        try:
            body = encode(value, takes_values)
        except BadArguments as error:
            raise TaskFailed(f"a value cannot be sent: {error}", type="BadArguments") from None
        self._send(job, credit.values, body)
        credit.send(1, len(body))

    def _run(self, task: Task, generator: Any, opened: OpenGenerator, take: Callable[[Any], None], result: Any) -> Any:
        """Run a generator to its end, with `take` called for each value; return `result`, in a coroutine if need be."""
        if hasattr(generator, "__anext__"):
            return self._drive_async(generator, opened, take, result)
        return self._drive(task, generator, opened, take, result)

    def _drive(
        self,
        task: Task,
        generator: Generator[Any, None, Any],
        opened: OpenGenerator,
        take: Callable[[Any], None],
        result: Any,
    ) -> Any:
        end = time.monotonic() + task.timeout if task.timeout else None
        try:
            while True:
                self._await_credit(task, opened, end)
                try:
                    value = next(generator)
                except StopIteration:
                    return result
                take(value)
        finally:
            self._forget(opened)
            generator.close()

    def _await_credit(self, task: Task, opened: OpenGenerator, end: float | None) -> None:
        """Wait until the next value may be sent. Raises Cancelled, TaskTimeout."""
        self._wait(0.0)
        while not opened.may_go_on():
            self._wait(STREAM_LOOK_S if end is None else min(STREAM_LOOK_S, max(0.0, end - time.monotonic())))
            _check_time(task, end)
        _check_time(task, end)

    async def _drive_async(
        self, generator: AsyncGenerator[Any, None], opened: OpenGenerator, take: Callable[[Any], None], result: Any
    ) -> Any:
        """Run an async generator; its timeout is the coroutine's."""
        import asyncio  # which workers without async tasks do not load

        try:
            while True:
                await asyncio.sleep(0)  # a turn for the others on the loop
                while not opened.may_go_on():
                    opened.news = asyncio.get_running_loop().create_future()
                    await opened.news
                try:
                    value = await anext(generator)
                except StopAsyncIteration:
                    return result
                if opened.reason is not None:  # the value may be another router's by now
                    raise opened.reason
                take(value)
        finally:
            self._forget(opened)
            await generator.aclose()


def _with_function(task: Task, make: Callable[[Any], Any], otherwise: Callable[[Any], Any]) -> Task:
    """Return the task with a function that gives the generator to `make` and returns what that returns.

    What is no generator, since a decorator has made something else of it, goes to `otherwise`.
    """
    function = task.callable

    @functools.wraps(task.function)
    def run(*args: Any, **kwargs: Any) -> Any:
        made = function(*args, **kwargs)
        return (make if hasattr(made, "__next__") or hasattr(made, "__anext__") else otherwise)(made)

    return msgspec.structs.replace(task, function=run, call=None)


def _check_time(task: Task, end: float | None) -> None:
    if end is not None and time.monotonic() >= end:
        text = f"{task.name} took longer than its timeout of {task.timeout:g} s, and was closed"
        raise TaskTimeout(text, seconds=task.timeout)


def _refuse(name: str, /, *args: Any, **kwargs: Any) -> Any:
    raise BadArguments(f"{name} is no generator, and has no values to stream: `call` it", name=name)


def _unconnected(*_: object) -> Any:
    raise RuntimeError("the streams are not connected to a router")
