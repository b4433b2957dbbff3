"""Workers of a concurrent lane, which run many tasks at once. Pure.

Each batch is one task, which begins when it comes: nothing waits at such a worker. Batches are answered in any order,
by their numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from taskengine.broker.lane import LaneWorker, Slice


class PlacesWorker(LaneWorker):
    """A worker that runs up to `most` tasks at once."""

    __slots__ = ("_most", "_numbers")

    def __init__(self, name: str, lane: str, first: int, missing: Collection[str], most: int) -> None:
        super().__init__(name, lane, first, missing)
        self._most = most
        self._numbers: list[int] = []
        """Of the batches, in their order; `first` is the number of the next."""

    def room(self) -> bool:
        """Return whether the worker has a free place."""
        return not self.is_excluded and len(self.batches) < self._most

    def hold(self, slices: list[Slice], now: float) -> int:
        """Give the worker a batch at `now`; return its number."""
        number, self.first = self.first, self.first + 1
        self.batches.append(slices)
        self._numbers.append(number)
        return number

    def numbers(self) -> Sequence[int]:
        """Return the numbers of the worker's batches, the oldest first."""
        return tuple(self._numbers)

    def answered(self, number: int | None) -> list[Slice] | None:
        """Return the slices of a batch of the worker, None where it has no such batch."""
        return self.batches[self._numbers.index(number)] if number in self._numbers else None

    def end(self, number: int | None, now: float) -> None:
        """Remove a batch that was answered, and has ended at `now`."""
        if number is not None:
            place = self._numbers.index(number)
            del self._numbers[place], self.batches[place]

    def recall(self) -> int:
        """Return the number of the last batch; all of them have begun, or do so before they are cancelled."""
        return self._numbers[-1]

    def is_handing_back(self) -> bool:
        """Return False: the worker hands back nothing."""
        return False

    def has_patient_work(self) -> bool:
        """Return False: the worker can hand back nothing."""
        return False
