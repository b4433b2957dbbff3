"""Decides the order within a lane. Pure.

In a lane of several workers, turns are fair between clients, however many packages each has, and between the packages
of a client. Turns are measured in ns of work. A lane of one worker keeps the order of reception. A data worker takes
fair turns between clients, and keeps the order of reception within a client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from taskengine.broker.chunking import Run
from taskengine.broker.fair_queue import FairQueue
from taskengine.broker.package import Package


class Span:
    """Tasks of a run that wait to be handed out, or to be handed out again: from position `first` to `stop`."""

    __slots__ = ("first", "is_again", "package", "run", "stop")

    def __init__(self, package: Package, run: Run, first: int, stop: int, *, is_again: bool = False) -> None:
        self.package = package
        self.run = run
        self.is_again = is_again
        self.first = first
        self.stop = stop

    def key(self) -> tuple[int, int]:
        """Return the span's place in the order of reception."""
        return self.package.flight.job, self.first

    def tasks(self) -> tuple[Package, int, int]:
        """Return the package, and which of its tasks: the first, and behind the last."""
        return self.package, self.first, self.stop

    def chunks(self) -> int:
        """Return how many chunks are left."""
        if self.stop - self.first == 1:
            return 1
        cut = self.run.cut
        return cut.number(self.stop - 1) - cut.number(self.first) + 1

    def end(self, chunks: int) -> int:
        """Return the position where the next so many chunks end."""
        if self.stop - self.first == 1:
            return self.stop
        cut = self.run.cut
        return min(cut.start(cut.number(self.first) + chunks), self.stop)

    def split(self, at: int) -> Span:
        """End at position `at`; return the rest as another span."""
        stop, self.stop = self.stop, at
        return Span(self.package, self.run, at, stop, is_again=self.is_again)


class Line:
    """Spans in the order of reception."""

    def __init__(self) -> None:
        self.waiting: deque[Span] = deque()

    def add(self, span: Span) -> None:
        """Append a span."""
        self.waiting.append(span)

    def back(self, span: Span) -> None:
        """Put back a span that was handed out and did not run: first, but behind spans that were received before it."""
        place = 0
        while place < len(self.waiting) and self.waiting[place].key() < span.key():
            place += 1
        self.waiting.insert(place, span)

    def split(self, span: Span, at: int) -> None:
        """End the first span at position `at`, and begin another one there."""
        self.waiting.insert(1, span.split(at))

    def first(self) -> Span | None:
        """Return the next span that has tasks left."""
        while self.waiting and self.waiting[0].first == self.waiting[0].stop:
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None

    def crowded(self) -> bool:
        """Return whether anybody else waits for a turn."""
        return False

    def charge(self, package: Package, cost: float) -> None:
        """Charge the package for work, in ns."""

    def revoke(self, packages: Collection[Package]) -> list[Span]:
        """Remove and return everything that waits of these packages."""
        gone = [span for span in self.waiting if span.package in packages]
        self.waiting = deque(span for span in self.waiting if span.package not in packages)
        return gone

    def clear(self) -> list[Span]:
        """Remove and return everything that waits."""
        spans, self.waiting = list(self.waiting), deque()
        return spans


class _Client:
    """The waiting packages of a client, with their spans."""

    def __init__(self) -> None:
        self.order = FairQueue[Package]()
        self.spans: dict[Package, deque[Span]] = {}


class LaneQueue:
    """Spans in fair turns between clients and packages."""

    def __init__(self) -> None:
        self._order = FairQueue[bytes]()
        self.waiting: dict[bytes, _Client] = {}
        """The clients that may have waiting packages."""

    def add(self, span: Span) -> None:
        """Append a span to those of its package."""
        self._spans(span.package).append(span)

    def back(self, span: Span) -> None:
        """Put back a span that was handed out and did not run, before the other spans of its package."""
        self._spans(span.package).appendleft(span)

    def split(self, span: Span, at: int) -> None:
        """End the span, the first of its package, at position `at`, and begin another one there."""
        self._spans(span.package).insert(1, span.split(at))

    def first(self) -> Span | None:
        """Return the next span that has tasks left."""
        while self.waiting:
            client = self.waiting[self._order.next()]
            package = client.order.next()
            spans = client.spans[package]
            while spans and spans[0].first == spans[0].stop:
                spans.popleft()
            if spans:
                return spans[0]
            self._close(package)
        return None

    def crowded(self) -> bool:
        """Return whether anybody else waits for a turn."""
        return len(self.waiting) > 1 or any(len(client.spans) > 1 for client in self.waiting.values())

    def charge(self, package: Package, cost: float) -> None:
        """Charge the package for work, in ns."""
        self._order.charge(package.sender.owner, cost)
        client = self.waiting.get(package.sender.owner)
        if client is not None:
            client.order.charge(package, cost)

    def revoke(self, packages: Collection[Package]) -> list[Span]:
        """Remove and return everything that waits of these packages."""
        gone: list[Span] = []
        for package in packages:
            client = self.waiting.get(package.sender.owner)
            if client is not None and package in client.spans:
                gone += client.spans[package]
                self._close(package)
        return gone

    def clear(self) -> list[Span]:
        """Remove and return everything that waits."""
        return self.revoke([package for client in self.waiting.values() for package in client.spans])

    def _spans(self, package: Package) -> deque[Span]:
        """Return the queue of a package's spans, and give the package turns from now on."""
        client = self.waiting.get(package.sender.owner)
        if client is None:
            client = self.waiting[package.sender.owner] = _Client()
            self._order.join(package.sender.owner)
        spans = client.spans.get(package)
        if spans is None:
            spans = client.spans[package] = deque()
            client.order.join(package)
        return spans

    def _close(self, package: Package) -> None:
        """Forget a package of which nothing waits any more."""
        client = self.waiting[package.sender.owner]
        del client.spans[package]
        client.order.leave(package)
        if not client.spans:
            del self.waiting[package.sender.owner]
            self._order.leave(package.sender.owner)


class Lines:
    """Spans in fair turns between clients; each client's in the order of reception."""

    def __init__(self) -> None:
        self._order = FairQueue[bytes]()
        self.waiting: dict[bytes, Line] = {}
        """The clients that may have waiting spans."""

    def add(self, span: Span) -> None:
        """Append a span to those of its client."""
        self._line(span.package).add(span)

    def back(self, span: Span) -> None:
        """Put back a span that was handed out and did not run: before its client's others that were received later."""
        self._line(span.package).back(span)

    def split(self, span: Span, at: int) -> None:
        """End the span, the first of its client, at position `at`, and begin another one there."""
        self._line(span.package).split(span, at)

    def first(self) -> Span | None:
        """Return the next span that has tasks left."""
        while self.waiting:
            client = self._order.next()
            span = self.waiting[client].first()
            if span is not None:
                return span
            self._close(client)
        return None

    def crowded(self) -> bool:
        """Return whether anybody else waits for a turn."""
        return len(self.waiting) > 1

    def charge(self, package: Package, cost: float) -> None:
        """Charge the package for work, in ns."""
        self._order.charge(package.sender.owner, cost)

    def revoke(self, packages: Collection[Package]) -> list[Span]:
        """Remove and return everything that waits of these packages."""
        clients = {package.sender.owner for package in packages}.intersection(self.waiting)
        return [span for client in clients for span in self.waiting[client].revoke(packages)]

    def clear(self) -> list[Span]:
        """Remove and return everything that waits."""
        spans = [span for line in self.waiting.values() for span in line.clear()]
        for client in list(self.waiting):
            self._close(client)
        return spans

    def _line(self, package: Package) -> Line:
        """Return the line of a package's client, and give the client turns from now on."""
        line = self.waiting.get(package.sender.owner)
        if line is None:
            line = self.waiting[package.sender.owner] = Line()
            self._order.join(package.sender.owner)
        return line

    def _close(self, client: bytes) -> None:
        """Forget a client of which nothing waits any more."""
        del self.waiting[client]
        self._order.leave(client)
