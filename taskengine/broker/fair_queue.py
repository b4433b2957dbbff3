"""Start-time fair queuing (Goyal, Vin and Cheng, SIGCOMM 1996). Pure.

The key that has been served least is next. A key that joins starts where the others are, so that no key saves up turns.
If it had been served more when it left, it starts there, so that leaving and joining again gains nothing.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SPARE = 64
"""How many keys that have left are remembered beyond the number that wait."""


class _Place:
    """How much a key has been served."""

    __slots__ = ("is_gone", "served")

    def __init__(self, served: float) -> None:
        self.served = served
        self.is_gone = False


class FairQueue(Generic[K]):
    """The keys that wait. Their order is corrected when it is asked for, so that charging costs nothing."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K, _Place]] = []
        self._places: dict[K, _Place] = {}
        self._gone: dict[K, _Place] = {}
        self._order = itertools.count()
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[K]:
        return iter(self._places)

    def join(self, key: K) -> None:
        """Add one waiting item of the key."""
        gone = self._gone.pop(key, None)
        place = self._places[key] = _Place(max(self._now, gone.served) if gone else self._now)
        heapq.heappush(self._heap, (place.served, next(self._order), key, place))

    def leave(self, key: K) -> None:
        """Remove one waiting item of the key."""
        place = self._gone[key] = self._places.pop(key)
        place.is_gone = True
        if len(self._gone) > len(self._places) + _SPARE:
            self._gone = {key: place for key, place in self._gone.items() if place.served > self._now}
        if len(self._heap) > 2 * len(self._places) + _SPARE:
            self._heap = [entry for entry in self._heap if not entry[3].is_gone]
            heapq.heapify(self._heap)

    def next(self) -> K:
        """Return the key that is next; one must be waiting."""
        while True:
            known, _, key, place = self._heap[0]
            if place.is_gone:
                heapq.heappop(self._heap)
            elif place.served > known:
                heapq.heapreplace(self._heap, (place.served, next(self._order), key, place))
            else:
                self._now = known
                return key

    def charge(self, key: K, cost: float) -> None:
        """Charge the key for service; a negative cost gives back what was charged too much."""
        place = self._places.get(key) or self._gone.get(key)
        if place is not None:
            place.served += cost
