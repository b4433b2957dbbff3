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
from collections.abc import Collection, Container, Iterable

from taskengine.errors import TaskEngineError
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
        return self.run.number(self.stop - 1) - self.run.number(self.first) + 1

    def end(self, chunks: int) -> int:
        """Where the next so many chunks end."""
        return min(self.run.start(self.run.number(self.first) + chunks), self.stop)


Revoked = tuple[Package, int, int, TaskEngineError]
"""Tasks that are not to start: their package, the first, behind the last, and why."""


def _sifted(spans: Iterable[Span], packages: Container[Package]) -> tuple[deque[Span], list[Revoked]]:
    """The spans, in order, without what is not to start of these packages; and that."""
    kept: deque[Span] = deque()
    gone: list[Revoked] = []
    for span in spans:
        package = span.package
        if package not in packages:
            kept.append(span)
            continue
        for first, stop, reason in package.verdicts(span.first, span.stop):
            if reason is None:
                kept.append(Span(package, span.run, first, stop))
            else:
                gone.append((package, first, stop, reason))
    return kept, gone


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

    def revoke(self, packages: Collection[Package]) -> list[Revoked]:
        """Take out what waits of these packages and is not to start."""
        self.waiting, gone = _sifted(self.waiting, packages)
        return gone

    def clear(self) -> list[Span]:
        """Take out all that waits."""
        spans, self.waiting = list(self.waiting), deque()
        return spans


class _Account:
    """What a package has been served, in ns of work and of its client's other packages', and its spans that wait."""

    __slots__ = ("package", "spans", "spent")

    def __init__(self, package: Package, spent: float) -> None:
        self.package = package
        self.spent = spent
        self.spans: deque[Span] = deque()


class Turns:
    """Spans in fair turns. Their order is put right when it is asked for, so that charging costs nothing."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, int, _Account]] = []  # a heap
        self._accounts: dict[Package, _Account] = {}
        self._packages: Counter[bytes] = Counter()  # that wait, by client
        self._order = itertools.count()
        self._now = 0.0

    def add(self, span: Span) -> None:
        """Where its package is, behind its other spans."""
        self._account(span.package).spans.append(span)

    def back(self, span: Span) -> None:
        """What was handed out and came back goes before the other spans of its package."""
        self._account(span.package).spans.appendleft(span)

    def first(self) -> Span | None:
        """The next span that has tasks left."""
        while self.waiting:
            spent, _, account = self.waiting[0]
            spans = account.spans
            while spans and spans[0].first == spans[0].stop:
                spans.popleft()
            if not spans:
                heapq.heappop(self.waiting)
                self._close(account)
            elif account.spent > spent:
                heapq.heapreplace(self.waiting, (account.spent, next(self._order), account))
            else:
                self._now = spent
                return spans[0]
        return None

    def crowded(self) -> bool:
        """Somebody else waits for a turn too."""
        return len(self._accounts) > 1

    def charge(self, package: Package, cost: float) -> None:
        """The package was served so many ns of work."""
        account = self._accounts.get(package)
        if account is not None:
            account.spent += cost * self._packages[package.client]

    def revoke(self, packages: Collection[Package]) -> list[Revoked]:
        """Take out what waits of these packages and is not to start."""
        gone: list[Revoked] = []
        for account in [self._accounts[package] for package in packages if package in self._accounts]:
            account.spans, revoked = _sifted(account.spans, [account.package])
            gone += revoked
            if not account.spans:
                self._close(account)
        self.waiting = [entry for entry in self.waiting if entry[2].spans]
        heapq.heapify(self.waiting)
        return gone

    def clear(self) -> list[Span]:
        """Take out all that waits."""
        spans = [span for account in self._accounts.values() for span in account.spans]
        self.waiting.clear()
        self._accounts.clear()
        self._packages.clear()
        return spans

    def _account(self, package: Package) -> _Account:
        account = self._accounts.get(package)
        if account is None:
            account = self._accounts[package] = _Account(package, self._now)
            self._packages[package.client] += 1
            heapq.heappush(self.waiting, (account.spent, next(self._order), account))
        return account

    def _close(self, account: _Account) -> None:
        del self._accounts[account.package]
        self._packages[account.package.client] -= 1
        if not self._packages[account.package.client]:
            del self._packages[account.package.client]
