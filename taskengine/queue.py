"""A client's queue: calls that `submit` and `send` collect, so that they travel together. Pure but for its lock."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from taskengine.errors import TaskEngineError
from taskengine.messages import Info
from taskengine.session import Awaitable, Call, Options, Session
from taskengine.wire import DEFAULT_FULL_LOAD, DEFAULT_RESPONSE_TIME

A = TypeVar("A", bound=Awaitable)


class Queue(Generic[A]):
    """Calls until RESPONSE_TIME has passed or a full load is there.

    `start(future)` marks a future as running, and is False where it was cancelled meanwhile.
    """

    def __init__(self, session: Session, start: Callable[[A], bool]) -> None:
        self._session = session
        self._start = start
        self._lock = threading.Lock()
        self._calls: dict[Options, list[tuple[Call, A]]] = {}
        self._count = 0
        self._due = math.inf
        self._response_time = DEFAULT_RESPONSE_TIME
        self._full_load = DEFAULT_FULL_LOAD
        self.asked = False

    def learn(self, info: Info) -> None:
        """Take the engine's RESPONSE_TIME and what a full load of it is."""
        self._response_time = info.response_time
        self._full_load = info.chunking_size * info.task_workers

    def add(self, call: Call, future: A, options: Options, now: float) -> bool:
        """Queue a call at `now`, monotonic s; True where that changes when the queue is due."""
        with self._lock:
            self._calls.setdefault(options, []).append((call, future))
            self._count += 1
            if self._count == 1:
                self._due = now + self._response_time
            return self._count == 1 or self._count >= self._full_load

    def due(self, now: float) -> float:
        """In how many seconds the queue is to be sent; inf where it is empty."""
        if self._count >= self._full_load:
            return 0.0
        return max(0.0, self._due - now)

    def take(self) -> list[list[bytes]]:
        """The packages of what is queued, one for each way of sending; the queue is empty then."""
        with self._lock:
            queued, self._calls = self._calls, {}
            self._count, self._due = 0, math.inf
        packages = []
        for options, entries in queued.items():
            packages += self._packages([entry for entry in entries if self._start(entry[1])], options)
        return packages

    def _packages(self, entries: list[tuple[Call, A]], options: Options) -> list[list[bytes]]:
        """One package, or, where a call among them cannot be sent, one for each call: it fails alone."""
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
