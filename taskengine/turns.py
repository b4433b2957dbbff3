"""Who is next in a lane. Pure.

Where a lane has several workers, turns are fair between clients, and between the packages of a client: the package
that has been served least is next, and what it is served counts as many times as its client has packages waiting.
What is served is work, in ns. Whoever comes anew starts where the others are, so that nobody saves up turns (start-time
fair queuing; Goyal, Vin and Cheng, SIGCOMM 1996). Where a lane has one worker, the order of reception is promised, and
it is kept.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Container

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
        self.spans: deque[Span] = deque()

    def add(self, span: Span) -> None:
        """To the end."""
        self.spans.append(span)

    def back(self, span: Span) -> None:
        """What was handed out and came back goes first."""
        self.spans.appendleft(span)

    def first(self) -> Span | None:
        """The next span that has tasks left."""
        while self.spans and self.spans[0].first == self.spans[0].stop:
            self.spans.popleft()
        return self.spans[0] if self.spans else None

    def crowded(self) -> bool:
        """Somebody else waits for a turn too."""
        return False

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""

    def drop(self, packages: Container[Package]) -> list[Span]:
        """Take out what waits of these packages."""
        gone = [span for span in self.spans if span.package in packages]
        self.spans = deque(span for span in self.spans if span.package not in packages)
        return gone


class _Account:
    """What a package has been served, in ns of work and of its client's other packages', and its spans that wait."""

    __slots__ = ("spans", "spent")

    def __init__(self, spent: float) -> None:
        self.spent = spent
        self.spans = 0


class Turns:
    """Spans in fair turns. Their order is put right when it is asked for, so that charging costs nothing."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, int, Span]] = []  # a heap
        self._accounts: dict[Package, _Account] = {}
        self._packages: Counter[bytes] = Counter()  # that wait, by client
        self._order = itertools.count()
        self._now = 0.0

    def add(self, span: Span) -> None:
        """Where its package is."""
        account = self._accounts.get(span.package)
        if account is None:
            account = self._accounts[span.package] = _Account(self._now)
            self._packages[span.package.client] += 1
        account.spans += 1
        heapq.heappush(self.spans, (account.spent, next(self._order), span))

    back = add

    def first(self) -> Span | None:
        """The next span that has tasks left."""
        while self.spans:
            spent, _, span = self.spans[0]
            account = self._accounts[span.package]
            if span.first == span.stop:
                heapq.heappop(self.spans)
                self._forget(span, account)
            elif account.spent > spent:
                heapq.heapreplace(self.spans, (account.spent, next(self._order), span))
            else:
                self._now = spent
                return span
        return None

    def crowded(self) -> bool:
        """Somebody else waits for a turn too."""
        return len(self._accounts) > 1

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""
        account = self._accounts.get(package)
        if account is not None:
            account.spent += cost * self._packages[package.client]

    def drop(self, packages: Container[Package]) -> list[Span]:
        """Take out what waits of these packages."""
        gone = [span for _, _, span in self.spans if span.package in packages]
        for span in gone:
            self._forget(span, self._accounts[span.package])
        self.spans = [entry for entry in self.spans if entry[2].package not in packages]
        heapq.heapify(self.spans)
        return gone

    def _forget(self, span: Span, account: _Account) -> None:
        account.spans -= 1
        if not account.spans:
            del self._accounts[span.package]
            self._packages[span.package.client] -= 1
            if not self._packages[span.package.client]:
                del self._packages[span.package.client]
