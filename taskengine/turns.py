"""Who is next in a lane. Pure.

Where a lane has several workers, turns are fair: the client that has been served least is next, and of its packages
the one that has been served least; what is served is work, in ns. Whoever comes anew starts where the others are, so
that nobody saves up turns (start-time fair queuing; Goyal, Vin and Cheng, SIGCOMM 1996). Where a lane has one worker,
the order of reception is promised, and it is kept.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from taskengine.package import Package, Run


class Span:
    """Tasks of a run that wait to be handed out: from position `first` to `stop`."""

    __slots__ = ("first", "package", "run", "stop")

    def __init__(self, package: Package, run: Run, first: int, stop: int) -> None:
        self.package = package
        self.run = run
        self.first = first
        self.stop = stop

    def chunks(self) -> int:
        """How many chunks are left."""
        return self.run.number(self.stop - 1) - self.run.number(self.first) + 1

    def end(self, chunks: int) -> int:
        """Where the next so many chunks end."""
        return min(self.run.start(self.run.number(self.first) + chunks), self.stop)


class Line:
    """Spans in the order of reception."""

    def __init__(self) -> None:
        self._spans: deque[Span] = deque()

    def add(self, span: Span) -> None:
        """To the end."""
        self._spans.append(span)

    def back(self, span: Span) -> None:
        """What was handed out and came back goes first."""
        self._spans.appendleft(span)

    def first(self) -> Span | None:
        """The next span that has tasks left."""
        while self._spans and self._spans[0].first == self._spans[0].stop:
            self._spans.popleft()
        return self._spans[0] if self._spans else None

    def crowded(self) -> bool:
        """Somebody else waits for a turn too."""
        return False

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""

    def drop(self, package: Package) -> list[Span]:
        """Take out what waits of a package."""
        gone = [span for span in self._spans if span.package is package]
        self._spans = deque(span for span in self._spans if span.package is not package)
        return gone

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)


class _Waiting(Protocol):
    def first(self) -> Span | None: ...


W = TypeVar("W", bound=_Waiting)


class _Member(Generic[W]):
    """Somebody known by `key` who was served `spent` ns of work, and what waits of theirs."""

    __slots__ = ("key", "spent", "waiting")

    def __init__(self, key: object, waiting: W, spent: float) -> None:
        self.key = key
        self.waiting = waiting
        self.spent = spent


class _Least(Generic[W]):
    """The least served first. The order is put right when it is asked for, so that charging costs nothing.

    Whoever has nothing left is forgotten when the turn comes.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Member[W]]] = []
        self._order = itertools.count()
        self._now = 0.0
        self.members: dict[object, _Member[W]] = {}

    def member(self, key: object, make: Callable[[], W]) -> _Member[W]:
        """The one that is known by `key`, who comes anew where nobody is."""
        one = self.members.get(key)
        if one is None:
            one = self.members[key] = _Member(key, make(), self._now)
            heapq.heappush(self._heap, (one.spent, next(self._order), one))
        return one

    def first(self) -> Span | None:
        """The next span of the least served."""
        while self._heap:
            spent, _, one = self._heap[0]
            if one.spent > spent:
                heapq.heapreplace(self._heap, (one.spent, next(self._order), one))
                continue
            span = one.waiting.first()
            if span is not None:
                self._now = spent
                return span
            heapq.heappop(self._heap)
            del self.members[one.key]
        return None


class Turns:
    """Spans in fair turns between clients, and between the packages of a client."""

    def __init__(self) -> None:
        self._clients: _Least[_Least[Line]] = _Least()

    def add(self, span: Span) -> None:
        """Behind the other spans of its package."""
        self._line(span.package).add(span)

    def back(self, span: Span) -> None:
        """What was handed out and came back goes first of its package."""
        self._line(span.package).back(span)

    def first(self) -> Span | None:
        """The next span that has tasks left."""
        return self._clients.first()

    def crowded(self) -> bool:
        """Somebody else waits for a turn too."""
        members = self._clients.members
        return len(members) > 1 or any(len(client.waiting.members) > 1 for client in members.values())

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""
        client = self._clients.members.get(package.client)
        if client is not None:
            client.spent += cost
            queued = client.waiting.members.get(package.job)
            if queued is not None:
                queued.spent += cost

    def drop(self, package: Package) -> list[Span]:
        """Take out what waits of a package."""
        client = self._clients.members.get(package.client)
        queued = client.waiting.members.get(package.job) if client else None
        return queued.waiting.drop(package) if queued else []

    def __iter__(self) -> Iterator[Span]:
        for client in self._clients.members.values():
            for queued in client.waiting.members.values():
                yield from queued.waiting

    def _line(self, package: Package) -> Line:
        client = self._clients.member(package.client, _Least)
        return client.waiting.member(package.job, Line).waiting
