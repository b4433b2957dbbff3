"""Tasks of a package that its client has cancelled one by one, until they are answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from taskengine.errors import Overloaded
from taskengine.protocol.limits import MAX_RUNS


class CancelledTasks:
    """The tasks of a package of `tasks` tasks that were cancelled."""

    def __init__(self, tasks: int) -> None:
        self._marks = bytearray(tasks)
        self._runs = 0
        self.left = 0
        """How many of them have no answer yet."""

    def add(self, positions: Iterable[int]) -> bool:
        """Add positions; return whether any of them is new. Raises Overloaded where they are too scattered."""
        marks, before, last = self._marks, self.left, len(self._marks) - 1
        for position in positions:
            if marks[position]:
                continue
            is_alone = not (position and marks[position - 1]) and not (position < last and marks[position + 1])
            if is_alone and self._runs == MAX_RUNS:
                text = f"the cancelled tasks of a package lie in at most {MAX_RUNS} places: cancel the rest as a whole"
                raise Overloaded(text, retry_after=None)
            self._runs += is_alone
            marks[position] = 1
            self.left += 1
        return self.left > before

    def add_runs(self, runs: Iterable[tuple[int, int]]) -> bool:
        """Add runs (first, stop) of tasks that have no answer; return whether any of them is new."""
        before = self.left
        for first, stop in runs:
            self.left += self._marks.count(0, first, stop)
            self._marks[first:stop] = b"\1" * (stop - first)
            self._runs += 1
        return self.left > before

    def any(self, first: int, stop: int) -> bool:
        """Return whether one of the tasks from `first` to `stop` is cancelled."""
        return self._marks.find(1, first, stop) >= 0

    def begin(self, first: int, stop: int) -> int:
        """Return the first cancelled task from position `first` on, or `stop` if there is none before it."""
        place = self._marks.find(1, first, stop)
        return stop if place < 0 else place

    def end(self, first: int, stop: int) -> int:
        """Return the first task from `first` on that is not cancelled, or `stop` if there is none before it."""
        place = self._marks.find(0, first, stop)
        return stop if place < 0 else place

    def answer(self, first: int, stop: int) -> None:
        """Note that the tasks from `first` to `stop` have been answered."""
        count = self._marks.count(1, first, stop)
        if count:
            self._marks[first:stop] = bytes(stop - first)
            self.left -= count
