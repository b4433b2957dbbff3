"""Tasks of a package that its client has cancelled one by one, until they are answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from taskengine.errors import Overloaded
from taskengine.protocol.limits import MAX_RUNS


class CancelledTasks:
    """Which of a package's `tasks` are not wanted any more."""

    def __init__(self, tasks: int) -> None:
        self._marks = bytearray(tasks)
        self._runs = 0
        self.left = 0
        """How many have no answer yet."""

    def add(self, positions: Iterable[int]) -> bool:
        """These too; whether any of them is new. Raises Overloaded where they lie too scattered."""
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
        """As `add`, of all tasks from the first to the stop of each run, none of which has an answer."""
        before = self.left
        for first, stop in runs:
            self.left += self._marks.count(0, first, stop)
            self._marks[first:stop] = b"\1" * (stop - first)
            self._runs += 1
        return self.left > before

    def any(self, first: int, stop: int) -> bool:
        """One of the tasks from `first` to `stop` is among them."""
        return self._marks.find(1, first, stop) >= 0

    def begin(self, first: int, stop: int) -> int:
        """The first of them from position `first` on, `stop` where there is none before."""
        place = self._marks.find(1, first, stop)
        return stop if place < 0 else place

    def end(self, first: int, stop: int) -> int:
        """The first that is none of them from position `first` on, `stop` where there is none before."""
        place = self._marks.find(0, first, stop)
        return stop if place < 0 else place

    def answer(self, first: int, stop: int) -> None:
        """The tasks from `first` to `stop` have been answered."""
        count = self._marks.count(1, first, stop)
        if count:
            self._marks[first:stop] = bytes(stop - first)
            self.left -= count
