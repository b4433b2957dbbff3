"""Who is next in a lane. Pure.

Where a lane has several workers, turns are fair between clients, however many packages they have, and between the
packages of a client. What is served is work, in ns. Where a lane has one worker, the order of reception is promised,
and it is kept. A data worker takes fair turns between clients, and what one client sends in the order of reception.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from taskengine.fair import Fair
from taskengine.package import Package, Run


class Span:
    """Tasks of a run that wait to be handed out: from position `first` to `stop`."""

    __slots__ = ("first", "package", "run", "stop")

    def __init__(self, package: Package, run: Run, first: int, stop: int) -> None:
        self.package = package
        self.run = run
        self.first = first
        self.stop = stop

    def key(self) -> tuple[int, int]:
        """Its place in the order of reception."""
        return self.package.job, self.first

    def chunks(self) -> int:
        """How many chunks are left."""
        if self.stop - self.first == 1:
            return 1
        return self.run.number(self.stop - 1) - self.run.number(self.first) + 1

    def end(self, chunks: int) -> int:
        """Where the next so many chunks end."""
        if self.stop - self.first == 1:
            return self.stop
        return min(self.run.start(self.run.number(self.first) + chunks), self.stop)

    def part(self, at: int) -> Span:
        """End at position `at`; the rest."""
        stop, self.stop = self.stop, at
        return Span(self.package, self.run, at, stop)


class Line:
    """Spans in the order of reception."""

    def __init__(self) -> None:
        self.waiting: deque[Span] = deque()

    def add(self, span: Span) -> None:
        """To the end."""
        self.waiting.append(span)

    def back(self, span: Span) -> None:
        """What was handed out and came back goes first, but behind what was received before it."""
        place = 0
        while place < len(self.waiting) and self.waiting[place].key() < span.key():
            place += 1
        self.waiting.insert(place, span)

    def part(self, span: Span, at: int) -> None:
        """The first span ends at position `at`, and another one begins."""
        self.waiting.insert(1, span.part(at))

    def first(self) -> Span | None:
        """The next span that has tasks left."""
        while self.waiting and self.waiting[0].first == self.waiting[0].stop:
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None

    def crowded(self) -> bool:
        """Somebody else waits for a turn too."""
        return False

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""

    def revoke(self, packages: Collection[Package]) -> list[Span]:
        """Take out all that waits of these packages."""
        gone = [span for span in self.waiting if span.package in packages]
        self.waiting = deque(span for span in self.waiting if span.package not in packages)
        return gone

    def clear(self) -> list[Span]:
        """Take out all that waits."""
        spans, self.waiting = list(self.waiting), deque()
        return spans


class _Client:
    """A client's packages that wait, with their spans."""

    def __init__(self) -> None:
        self.order = Fair[Package]()
        self.spans: dict[Package, deque[Span]] = {}


class Turns:
    """Spans in fair turns."""

    def __init__(self) -> None:
        self._order = Fair[bytes]()
        self.waiting: dict[bytes, _Client] = {}
        """The clients that have packages which may wait."""

    def add(self, span: Span) -> None:
        """Where its package is, behind its other spans."""
        self._spans(span.package).append(span)

    def back(self, span: Span) -> None:
        """What was handed out and came back goes before the other spans of its package."""
        self._spans(span.package).appendleft(span)

    def part(self, span: Span, at: int) -> None:
        """The span, its package's first, ends at position `at`, and another one begins."""
        self._spans(span.package).insert(1, span.part(at))

    def first(self) -> Span | None:
        """The next span that has tasks left."""
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
        """Somebody else waits for a turn too."""
        return len(self.waiting) > 1 or any(len(client.spans) > 1 for client in self.waiting.values())

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""
        self._order.charge(package.owner, cost)
        client = self.waiting.get(package.owner)
        if client is not None:
            client.order.charge(package, cost)

    def revoke(self, packages: Collection[Package]) -> list[Span]:
        """Take out all that waits of these packages."""
        gone: list[Span] = []
        for package in packages:
            client = self.waiting.get(package.owner)
            if client is not None and package in client.spans:
                gone += client.spans[package]
                self._close(package)
        return gone

    def clear(self) -> list[Span]:
        """Take out all that waits."""
        return self.revoke([package for client in self.waiting.values() for package in client.spans])

    def _spans(self, package: Package) -> deque[Span]:
        """Where the spans of a package wait, which has its turns from now on."""
        client = self.waiting.get(package.owner)
        if client is None:
            client = self.waiting[package.owner] = _Client()
            self._order.join(package.owner)
        spans = client.spans.get(package)
        if spans is None:
            spans = client.spans[package] = deque()
            client.order.join(package)
        return spans

    def _close(self, package: Package) -> None:
        """Nothing waits of the package any more."""
        client = self.waiting[package.owner]
        del client.spans[package]
        client.order.leave(package)
        if not client.spans:
            del self.waiting[package.owner]
            self._order.leave(package.owner)


class Lines:
    """Spans in fair turns of clients, those of a client in the order of reception."""

    def __init__(self) -> None:
        self._order = Fair[bytes]()
        self.waiting: dict[bytes, Line] = {}
        """The clients that have spans which may wait."""

    def add(self, span: Span) -> None:
        """Behind its client's other spans."""
        self._line(span.package).add(span)

    def back(self, span: Span) -> None:
        """What was handed out and came back goes first, but behind what was received of its client before it."""
        self._line(span.package).back(span)

    def part(self, span: Span, at: int) -> None:
        """The span, its client's first, ends at position `at`, and another one begins."""
        self._line(span.package).part(span, at)

    def first(self) -> Span | None:
        """The next span that has tasks left."""
        while self.waiting:
            client = self._order.next()
            span = self.waiting[client].first()
            if span is not None:
                return span
            self._close(client)
        return None

    def crowded(self) -> bool:
        """Somebody else waits for a turn too."""
        return len(self.waiting) > 1

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""
        self._order.charge(package.owner, cost)

    def revoke(self, packages: Collection[Package]) -> list[Span]:
        """Take out all that waits of these packages."""
        clients = {package.owner for package in packages}.intersection(self.waiting)
        return [span for client in clients for span in self.waiting[client].revoke(packages)]

    def clear(self) -> list[Span]:
        """Take out all that waits."""
        spans = [span for line in self.waiting.values() for span in line.clear()]
        for client in list(self.waiting):
            self._close(client)
        return spans

    def _line(self, package: Package) -> Line:
        """Where the spans of a package's client wait, which has its turns from now on."""
        line = self.waiting.get(package.owner)
        if line is None:
            line = self.waiting[package.owner] = Line()
            self._order.join(package.owner)
        return line

    def _close(self, client: bytes) -> None:
        """Nothing waits of the client any more."""
        del self.waiting[client]
        self._order.leave(client)
