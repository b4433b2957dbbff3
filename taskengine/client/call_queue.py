"""A client's queue: collects the calls of `submit` and `send`, so that they travel together. Pure."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future
from typing import Any

from taskengine.client.calls import Call
from taskengine.client.requests import Options, OutgoingRequest
from taskengine.client.session import Session
from taskengine.client.task_future import to_send
from taskengine.errors import TaskEngineError
from taskengine.protocol.limits import DEFAULT_FULL_LOAD, DEFAULT_RESPONSE_TIME
from taskengine.protocol.messages import Info


class Calls:
    """Calls that were queued one after the other with the same options; `made` is as in OutgoingRequest."""

    def __init__(self, options: Options, made: int) -> None:
        self.options = options
        self.made = made
        self.entries: list[tuple[Call, Future[Any]]] = []

    def pack(self, session: Session) -> list[OutgoingRequest]:
        """Return one package with all calls, or one for each call if any cannot be sent, so that it fails alone.

        Calls whose future was cancelled are left out.
        """
        places = to_send(future for _, future in self.entries)
        wanted = self.entries if len(places) == len(self.entries) else [self.entries[place] for place in places]
        return self._pack(session, wanted) if wanted else []

    def _pack(self, session: Session, entries: list[tuple[Call, Future[Any]]]) -> list[OutgoingRequest]:
        calls, futures = [call for call, _ in entries], [future for _, future in entries]
        try:
            how = {"each": True, "is_watched": self.options.reply != "none"}
            return [session.package(calls, futures, self.options, made=self.made, **how)]
        except TaskEngineError as error:
            if len(entries) == 1:
                session.outcomes.append((futures[0], error))
                return []
            return [outgoing for entry in entries for outgoing in self._pack(session, [entry])]


class CallQueue:
    """Collects calls, in order, until RESPONSE_TIME has passed or a full load is there."""

    def __init__(self) -> None:
        self.queued: list[Calls] = []
        """The queued calls, by neighbours with the same options."""
        self._count = 0
        self._due = math.inf
        self._response_time = DEFAULT_RESPONSE_TIME
        self._full_load = DEFAULT_FULL_LOAD

    def learn(self, info: Info | None) -> None:
        """Take RESPONSE_TIME and the size of a full load from the engine's answer."""
        if info is None:
            return
        self._response_time = info.response_time
        self._full_load = info.chunking_size * info.task_workers

    def join(self, call: Call, future: Future[Any], options: Options) -> bool:
        """Queue a call behind others with the same options, if nothing else changes by that; return whether it did."""
        if not self.queued or self._count == self._full_load - 1:
            return False
        last = self.queued[-1]
        if last.options is not options:
            return False
        last.entries.append((call, future))
        self._count += 1
        return True

    def add(self, call: Call, future: Future[Any], options: Options, now: float, made: int = 0) -> bool:
        """Queue a call at `now`, monotonic s, and `made` by the clock that times calls, in ns.

        Return whether that changes when the queue is due.
        """
        if not self.queued or self.queued[-1].options != options:
            self.queued.append(Calls(options, made))
        self.queued[-1].entries.append((call, future))
        self._count += 1
        if self._count == 1:
            self._due = now + self._response_time
        return self._count in (1, self._full_load)

    def due(self, now: float) -> float:
        """Return in how many seconds the queue is to be sent; inf if it is empty."""
        if self._count >= self._full_load:
            return 0.0
        return max(0.0, self._due - now)

    def move(self, outbox: deque[Any]) -> None:
        """Move all queued calls to the outbox."""
        queued, self.queued = self.queued, []
        outbox.extend(queued)  # no signal's handler runs between these lines: it runs after a call
        self._count, self._due = 0, math.inf
