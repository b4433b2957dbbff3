"""Tasks that run again after an error of their own, and wait for that. Pure.

A worker marks the errors after which a task may run again. Here it is decided whether it does: it has tries left, its
package is still wanted, and it would begin before its deadline. Until then the task waits in no lane, so that no worker
is held up, and it is answered once: by its last try.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from random import SystemRandom
from typing import Final

from taskengine.broker.counters import Counters
from taskengine.broker.lane import Lane, Slice
from taskengine.broker.package import Package
from taskengine.protocol.messages import RetryPolicy

LONGEST_PAUSE_S: Final = 60.0
"""Up to which the pause between two tries doubles; a longer first one stays as it is."""


def pause_s(policy: RetryPolicy, tries: int, draw: float) -> float:
    """Return the pause after so many tries, in s: the backoff, doubled each time, and of that half to all by `draw`.

    The draw, from 0 to 1, keeps tasks that failed together from running together again.
    """
    whole = policy.backoff * math.ldexp(1.0, min(tries - 1, 64))
    return min(whole, max(LONGEST_PAUSE_S, policy.backoff)) * (0.5 + draw / 2)


_draw: Final = SystemRandom().random


class Retries:
    """Tasks of the `lanes` that wait for their next try; `draw` gives numbers from 0 to 1."""

    def __init__(self, lanes: Mapping[str, Lane], counters: Counters, draw: Callable[[], float] = _draw) -> None:
        self._lanes = lanes
        self._counters = counters
        self._draw = draw
        self._policies: Mapping[str, RetryPolicy] = {}
        self._waiting: list[tuple[float, int, Slice]] = []
        """A heap of tasks by when they are due."""
        self._numbers = itertools.count()
        self.due = math.inf
        """When the next task is to run again, in s, monotonic; infinite where none waits."""
        self.retried: Counter[str] = Counter()
        """How often tasks ran again, by their names."""

    def learn(self, policies: Mapping[str, RetryPolicy]) -> None:
        """Replace the policies of the tasks that run again, by their names."""
        self._policies = policies

    def keep(self, slice: Slice, position: int, now: float) -> bool:
        """Keep a task that failed until it is to run again; return whether it is. `now` is in s, monotonic."""
        package, flight = slice.package, slice.package.flight
        name = package.name_of(position)
        policy, tries = self._policies.get(name), flight.tries or {}
        number = tries.get(position, 0) + 1
        cancellation = flight.cancellation
        is_cancelled = cancellation.reason is not None or any(cancellation.runs(position, position + 1))
        if policy is None or number > policy.retries or is_cancelled:
            return False
        due = now + pause_s(policy, number, self._draw())
        if due >= package.deadline:
            return False
        tries[position] = number
        flight.tries = tries
        self.retried[name] += 1
        self._counters.retried += 1
        self._lanes[slice.run.lane].postponed += 1
        heapq.heappush(self._waiting, (due, next(self._numbers), slice.between(position, position + 1)))
        self.due = self._waiting[0][0]
        return True

    def take(self, now: float) -> list[Slice]:
        """Remove and return the tasks that are to run again now."""
        taken = []
        while self._waiting and self._waiting[0][0] <= now:
            taken.append(heapq.heappop(self._waiting)[2])
        return self._released(taken)

    def revoke(self, packages: Collection[Package]) -> list[Slice]:
        """Remove and return the tasks of these packages."""
        gone = [slice for _, _, slice in self._waiting if slice.package in packages]
        if gone:
            self._waiting = [entry for entry in self._waiting if entry[2].package not in packages]
            heapq.heapify(self._waiting)
        return self._released(gone)

    def _released(self, slices: list[Slice]) -> list[Slice]:
        for slice in slices:
            self._lanes[slice.run.lane].postponed -= 1
        self.due = self._waiting[0][0] if self._waiting else math.inf
        return slices
