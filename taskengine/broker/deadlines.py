"""The deadlines of packages in flight. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from taskengine.broker.package import Package
from taskengine.protocol.layouts import NO_DEADLINE

_SPARE = 64
"""How many deadlines may be kept beyond twice the number of packages in flight."""


class Deadlines(list[tuple[float, int]]):
    """Tells which of the `packages` in flight are late. A heap of (deadline, job); some of the jobs are over."""

    def __init__(self, packages: Mapping[int, Package]) -> None:
        super().__init__()
        self._packages = packages

    def add(self, package: Package) -> None:
        """Note the deadline of a package that is in flight, if it has one."""
        if package.deadline == NO_DEADLINE:
            return
        heapq.heappush(self, (package.deadline, package.flight.job))
        if len(self) > 2 * len(self._packages) + _SPARE:
            self[:] = [entry for entry in self if entry[1] in self._packages]
            heapq.heapify(self)

    def passed(self, now: float) -> list[Package]:
        """Remove and return the packages whose deadline has passed; `now` is in s, monotonic."""
        late = []
        while self and self[0][0] <= now:
            package = self._packages.get(heapq.heappop(self)[1])
            if package is not None:
                late.append(package)
        if not self._packages:
            self.clear()
        return late
