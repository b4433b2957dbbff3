"""An Executor of `concurrent.futures` whose workers are an engine's. Only names and values travel, never code."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any

from taskengine.client.blocking import Client
from taskengine.client.ordering import flattened, in_order
from taskengine.client.task_future import PENDING, TaskFuture
from taskengine.errors import BadArguments, Cancelled
from taskengine.protocol.limits import DEFAULT_ADDRESS
from taskengine.protocol.marks import task_name

CONNECT_S = 10.0
"""How long, in s, a new executor waits for its engine."""
LOOK_S = 0.5
"""How often, in s, a program that ends looks whether the engine of its calls is still there."""
Function = Callable[..., Any] | str
Resolved = tuple[str, tuple[Any, ...], Mapping[str, Any]]


def resolve(function: Function, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Resolved:
    """Return the call of a task that a call of a function is: name, args, kwargs.

    `function` is a function decorated with `@task`, one named `task_…`, a `functools.partial` of one, or a task's name.
    Raises BadArguments for any other.
    """
    kwargs = kwargs or {}
    while isinstance(function, partial):
        args, kwargs, function = (*function.args, *args), {**function.keywords, **kwargs}, function.func
    name = function if isinstance(function, str) else task_name(function)
    if not name:
        what = getattr(function, "__qualname__", None) or repr(function)
        raise BadArguments(
            f"{what} is no task, and code is never sent to an engine: put @taskengine.task on a function of a module "
            f"that the engine's setting TASKS names, and submit that function, or its name"
        )
    return name, args, kwargs


class ExecutorFuture(TaskFuture):
    """The future of a call of an executor: `cancelled()` once the engine has confirmed that the task will not begin."""

    executor: Executor
    """Kept, so that a program waits at its end for calls whose executor it has let go."""

    def set_exception(self, exception: BaseException | None) -> None:
        """End in an exception, or as cancelled where this was asked for and came in time."""
        if not (self.is_unwanted and isinstance(exception, Cancelled)):
            super().set_exception(exception)
            return
        # as a call that was cancelled before it was sent
        if self._state != PENDING or not Future.cancel(self):
            raise futures.InvalidStateError(f"{self!r}")
        Future.set_running_or_notify_cancel(self)


class _ExecutorClient(Client):
    _future_type = _submitted_type = ExecutorFuture

    def use(self, workers: int) -> None:
        """Send calls at once while fewer requests are pending than the engine has workers: one is idle."""
        self._link.window = workers

    def is_connected(self) -> bool:
        """Return whether the engine is there, as far as is known."""
        return self._link.is_connected

    def awaited(self) -> list[ExecutorFuture]:
        """Return the calls of the executor that have not ended, the oldest last."""
        return [future for future in self._link.awaited() if isinstance(future, ExecutorFuture)]


class Executor(futures.Executor):
    """Runs tasks of the engine at `address`; `keys`, `engine` and `insecure` are as for `taskengine.Client`.

    A function is submitted as itself if it was decorated with `@task`, or by its task's name. How many run at once is
    for the engine to say (TASK_WORKERS, LANES). A call waits up to `timeout` s for its result, None for ever.

    Shut it down, or use it in `with`. When the interpreter exits, it waits for what was submitted, as the pools of the
    standard library do, but where the engine is gone for no longer than `Client.close`. A child that was forked may use
    it too, and connects anew; the futures of calls that its parent made end in Cancelled there. Raises
    EngineUnreachable where no engine answers, and what `Client` raises.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        name: str = "EXECUTOR",
        *,
        timeout: float | None = None,
        keys: str | os.PathLike[str] | None = None,
        engine: str = "",
        insecure: bool = False,
    ) -> None:
        self._lock = threading.RLock()  # a signal's handler may submit
        self._refusal = ""
        self._closing: set[Future[Any]] = set()
        """The calls after whose end the connection is closed, where `shutdown` did not wait."""
        self._make = partial(_ExecutorClient, address, name, timeout, keys, engine, insecure)
        self._client: _ExecutorClient | None = self._make()
        try:
            self.workers: int = self._client.options(timeout=CONNECT_S).info().task_workers
            """How many workers the engine has for tasks of no lane."""
        except BaseException:
            self._client.close(0.0)
            raise
        self._client.use(self.workers)
        _executors.add(self)

    def submit(self, fn: Function, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a task and return its future: sent at once while a worker may be idle, otherwise as by `Client.submit`.

        `fn` is a decorated function, a `functools.partial` of one, or a task's name. Raises BadArguments for any other
        function, RuntimeError after `shutdown`.
        """
        name, every, named = resolve(fn, args, kwargs)
        with self._lock:
            return self._own(self._engine().submit(name, *every, **named))

    def submit_all(self, calls: Iterable[tuple[Function, tuple[Any, ...], Mapping[str, Any]]]) -> Future[list[Any]]:
        """Send many calls as one package, and return the future of the list of results, with errors in their places.

        Raises what `submit` raises, and BadArguments for values that cannot be sent.
        """
        resolved = [resolve(*call) for call in calls]
        with self._lock:
            return self._own(self._engine().submit_all(resolved))

    def map(
        self,
        fn: Function,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Call a task once for each tuple of arguments; return an iterator of the results, in order, as they come.

        Args:
            fn: as for `submit`.
            iterables: the arguments, as for the builtin `map`.
            timeout: how long, in s from this call, the results may take; then `TimeoutError` is raised. None for ever.
            chunksize: how many calls travel as one package, and come back together; higher is faster for tiny tasks.
            buffersize: how many packages, or calls, are under way at most; the iterables are read as results are taken.
                None reads them at once.

        Raises what `submit` raises, TypeError and ValueError for numbers out of range. A task's error is raised in the
        place of its result; what has not begun by then is cancelled.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        resolve(fn)
        rows = zip(*iterables, strict=False)
        if chunksize == 1:
            return in_order(partial(self.submit, fn), rows, buffersize, timeout)

        def submit(*chunk: tuple[Any, ...]) -> Future[list[Any]]:
            return self.submit_all((fn, row, {}) for row in chunk)

        return flattened(in_order(submit, _chunks(rows, chunksize), buffersize, timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls, and close the connection once all submitted calls have ended. May be called twice.

        With `wait` this returns only then. With `cancel_futures` calls that have not begun are cancelled.
        """
        with self._lock:
            self._refusal = self._refusal or "cannot schedule new futures after shutdown"
            pending = self._client.awaited() if self._client else []
            self._closing.update(pending)
        if cancel_futures:
            for future in pending:  # those that would begin last first
                future.cancel()
        if wait:
            futures.wait(pending)
            self._close()
            return
        for future in pending:
            future.add_done_callback(self._ended)
        if not pending:
            self._close()

    def abort(self) -> None:
        """Close the connection now: calls that have not ended end in Cancelled, and what has not begun never does."""
        with self._lock:
            self._refusal = self._refusal or "cannot schedule new futures after shutdown"
        self._close(0.0)

    def _engine(self) -> _ExecutorClient:
        """Return the client to call with. Raises RuntimeError after `shutdown`."""
        if self._refusal:
            raise RuntimeError(self._refusal)
        if self._client is None:
            self._client = self._make()
            self._client.use(self.workers)
        return self._client

    def _own(self, future: Future[Any]) -> Future[Any]:
        if isinstance(future, ExecutorFuture):  # that of a stop is another
            future.executor = self
        return future

    def _ended(self, future: Future[Any]) -> None:
        with self._lock:
            self._closing.discard(future)
        if not self._closing:
            self._close()

    def _close(self, timeout: float | None = None) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close(timeout)

    def _end(self) -> None:
        """Wait at the end of the program for what was submitted, while the engine is there, and close."""
        self._refusal = "cannot schedule new futures after interpreter shutdown"
        client = self._client
        while client is not None and client.is_connected() and futures.wait(client.awaited(), LOOK_S).not_done:
            continue
        self._close()

    def _leave_parent(self) -> None:
        """Begin anew in a forked child: the connection is the parent's, and a lost thread may hold the lock."""
        self._lock = threading.RLock()
        client, self._client = self._client, None
        for future in client.awaited() if client else ():
            future.disown(Cancelled("this call was made before the process was forked, and is the parent's"))


def _chunks(rows: Iterator[tuple[Any, ...]], size: int) -> Iterator[tuple[Any, ...]]:
    while chunk := tuple(islice(rows, size)):
        yield chunk


def _leave_parent() -> None:
    for executor in _executors:
        executor._leave_parent()


def _end_all() -> None:
    for executor in list(_executors):
        executor._end()


_executors: weakref.WeakSet[Executor] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_leave_parent)
atexit.register(_end_all)
