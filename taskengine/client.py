"""The client that waits: verbs over a link that several threads may share."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import msgspec

from taskengine.errors import EngineUnreachable, TaskEngineError, TaskTimeout
from taskengine.link import Link
from taskengine.messages import Info, Kind, TaskInfo
from taskengine.queue import Queue
from taskengine.session import Call, Options, Session
from taskengine.subscription import Subscription
from taskengine.wire import DEFAULT_ADDRESS

CLOSE_S = 5.0


class Client:
    """Calls tasks of the engine at `address`, as `name`; a call waits up to `timeout` s, or for ever with None.

    May be used from several threads, and reconnects by itself. Close it, or use it in `with`.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, name: str = "CLIENT", timeout: float | None = 60.0) -> None:
        self.address = address
        self._options = Options(timeout=timeout)
        self._session = Session(name)
        self._queue: Queue[Future[Any]] = Queue(self._session, Future.set_running_or_notify_cancel)
        self._link = Link(address, self._session, self._queue)

    def options(self, **changes: Any) -> Client:
        """This client with other options: timeout, deadline, priority, reply, idempotent, errors."""
        view = copy.copy(self)
        view._options = msgspec.structs.replace(self._options, **changes)
        return view

    def call(self, task: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a task and wait for its result. Raises the task's error, TaskTimeout or EngineUnreachable."""
        future: Future[Any] = Future()
        frames = self._session.package([(task, args, kwargs)], [future], self._options, each=True)
        return self._exchange(frames, future)

    def map(self, task: str, /, *iterables: Iterable[Any]) -> list[Any]:
        """Call a task once for each tuple of arguments, like the builtin `map`, as one package.

        The results come in order. The first error among them is raised, or, with the option `errors="return"`, stands
        in its place.
        """
        future: Future[Any] = Future()
        results: list[Any] = self._exchange(
            self._session.mapped(task, zip(*iterables, strict=False), future, self._options), future
        )
        return results

    def run(self, calls: Iterable[Call]) -> list[Any]:
        """Call many tasks, each as (name, args, kwargs), as one package; results and errors come in order."""
        future: Future[Any] = Future()
        results: list[Any] = self._exchange(self._session.package(calls, [future], self._options, each=False), future)
        return results

    def submit(self, task: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call and give its future; the queue is flushed every RESPONSE_TIME, or when a full load is in it."""
        future: Future[Any] = Future()
        self._enqueue((task, args, kwargs), future, self._options)
        return future

    def send(self, task: str, /, *args: Any, **kwargs: Any) -> None:
        """Queue a call whose result nobody wants; the engine discards it."""
        self._enqueue((task, args, kwargs), Future(), msgspec.structs.replace(self._options, reply="none"))

    def flush(self) -> None:
        """Send what is queued now."""
        for frames in self._queue.take():
            self._link.post(frames)

    def tasks(self) -> list[TaskInfo]:
        """The tasks that the engine knows: names, signatures, docs, lanes."""
        return msgspec.convert(self._ask(Kind.TASKS), list[TaskInfo])

    def info(self) -> Info:
        """The engine's version, settings and data ports."""
        return msgspec.convert(self._ask(Kind.INFO), Info)

    def progress(self) -> list[tuple[str, int, int]]:
        """Serial, tasks done and tasks in all of each package that this client has in flight."""
        return [(serial, done, parts) for serial, done, parts in self._ask(Kind.PROGRESS)]

    def publish(self, topic: str, value: Any) -> None:
        """Publish a value on a topic."""
        self._ask(Kind.PUBLISH, [topic, value])

    def latest(self, topic: str) -> Any:
        """The last value on a topic. Raises TaskFailed, type LookupError, where there is none yet."""
        return self._ask(Kind.LATEST, [topic])

    def subscribe(self, topic: str) -> Subscription:
        """The values on a topic from the last one on; a topic that ends in `*` takes all that begin so."""
        return Subscription(self.info().data_addresses, topic)

    def close(self, timeout: float = CLOSE_S) -> None:
        """Send what is queued, wait up to `timeout` s for what is pending, and close. May be called twice."""
        self._link.close(timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # who presses ctrl-c has stopped waiting
        self.close(0.0 if kind is KeyboardInterrupt else CLOSE_S)

    def _ask(self, kind: Kind, value: Sequence[Any] | None = None) -> Any:
        future: Future[Any] = Future()
        return self._exchange(self._session.request(kind, future, Options(), value), future)

    def _exchange(self, frames: list[bytes], future: Future[Any]) -> Any:
        timeout = self._options.timeout
        try:
            return self._link.exchange(frames, future, timeout)
        except TimeoutError as error:
            if isinstance(error, TaskEngineError):
                raise
            self._session.forget(future)
            if self._link.connected():
                raise TaskTimeout(f"no reply in {timeout:g} s", seconds=timeout) from None
            raise EngineUnreachable(
                f"no engine answers at {self.address} (waited {timeout:g} s)", address=self.address
            ) from None

    def _enqueue(self, call: Call, future: Future[Any], options: Options) -> None:
        if not self._queue.asked:
            self._learn()
        if self._queue.add(call, future, options, time.monotonic()):
            self._link.poke()

    def _learn(self) -> None:
        """Ask the engine for its RESPONSE_TIME and what a full load is; until it answers, the defaults hold."""
        self._queue.asked = True
        future: Future[Any] = Future()
        future.add_done_callback(self._learned)
        self._link.post(self._session.request(Kind.INFO, future, Options()))

    def _learned(self, future: Future[Any]) -> None:
        if future.exception() is None:
            self._queue.learn(msgspec.convert(future.result(), Info))
