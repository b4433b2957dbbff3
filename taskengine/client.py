"""The client that waits: verbs over a link that several threads may share."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import msgspec

from taskengine.errors import EngineUnreachable, TaskEngineError, TaskTimeout
from taskengine.link import FOREVER_S, Link
from taskengine.messages import Info, Kind, TaskInfo
from taskengine.session import Call, Options, Session
from taskengine.subscription import Subscription
from taskengine.wire import DEFAULT_ADDRESS, DEFAULT_FULL_LOAD, DEFAULT_RESPONSE_TIME


class _Queue:
    """Calls that `submit` and `send` have queued, until RESPONSE_TIME has passed or a full load is there."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._calls: dict[Options, list[tuple[Call, Future[Any]]]] = {}
        self._due = FOREVER_S
        self._count = 0
        self.response_time = DEFAULT_RESPONSE_TIME
        self.full_load = DEFAULT_FULL_LOAD
        self.asked = False

    def add(self, call: Call, future: Future[Any], options: Options) -> bool:
        """Queue a call; True where the leader must know, since the queue was empty or is full."""
        with self._lock:
            self._calls.setdefault(options, []).append((call, future))
            self._count += 1
            if self._count == 1:
                self._due = time.monotonic() + self.response_time
            return self._count == 1 or self._count >= self.full_load

    def due(self, now: float) -> float:
        """In how many seconds the queue is to be flushed."""
        if not self._count:
            return FOREVER_S
        return 0.0 if self._count >= self.full_load else max(0.0, self._due - now)

    def take(self) -> list[list[bytes]]:
        """The packages of what is queued, one for each way of sending; a call that cannot be sent fails alone."""
        with self._lock:
            queued, self._calls = self._calls, {}
            self._count, self._due = 0, FOREVER_S
        packages = []
        for options, entries in queued.items():
            # a future that was cancelled in the queue is not sent; the others can be cancelled no more
            entries = [(call, future) for call, future in entries if future.set_running_or_notify_cancel()]
            packages += self._packages(entries, options)
        return packages

    def _packages(self, entries: list[tuple[Call, Future[Any]]], options: Options) -> list[list[bytes]]:
        if not entries:
            return []
        calls, futures = [call for call, _ in entries], [future for _, future in entries]
        try:
            return [self._session.package(calls, futures, options, each=True)]
        except TaskEngineError as error:
            if len(entries) == 1:
                futures[0].set_exception(error)
                return []
            return [frames for entry in entries for frames in self._packages([entry], options)]


class Client:
    """Calls tasks of the engine at `address`, as `name`; a call waits up to `timeout` s, or for ever with None.

    May be used from several threads, and reconnects by itself. Close it, or use it in `with`.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, name: str = "CLIENT", timeout: float | None = 60.0) -> None:
        self.address = address
        self._options = Options(timeout=timeout)
        self._session = Session(name)
        self._queue = _Queue(self._session)
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
        if self._options.errors == "raise":
            for result in results:
                if isinstance(result, TaskEngineError):
                    raise result
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
        """Serial, chunks done and chunks in all of each package that this client has in flight."""
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

    def close(self, timeout: float = 5.0) -> None:
        """Send what is queued, wait up to `timeout` s for what is pending, and close. May be called twice."""
        self._link.close(timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        if self._queue.add(call, future, options):
            self._link.poke()

    def _learn(self) -> None:
        """Ask the engine for its RESPONSE_TIME and what a full load is; until it answers, the defaults hold."""
        self._queue.asked = True
        future: Future[Any] = Future()
        future.add_done_callback(self._learned)
        self._link.post(self._session.request(Kind.INFO, future, Options()))

    def _learned(self, future: Future[Any]) -> None:
        if future.exception() is None:
            info = msgspec.convert(future.result(), Info)
            self._queue.response_time = info.response_time
            self._queue.full_load = info.chunking_size * info.task_workers
