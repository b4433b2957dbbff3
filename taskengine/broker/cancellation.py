"""Tasks of a package that are not to start any more, until they are answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from taskengine.broker.results import Results
from taskengine.errors import Cancelled, Overloaded, TaskEngineError
from taskengine.protocol.limits import MAX_RUNS


def cancelled() -> Cancelled:
    """Return the error of a task that its client cancelled before it began."""
    return Cancelled("the task was cancelled before it began")


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


class Cancellation:
    """The cancelled part of a package: nothing, single tasks, or all tasks that have not started."""

    __slots__ = ("is_by_client", "reason", "tasks")

    def __init__(self) -> None:
        self.is_by_client = False
        """Whether the client has cancelled all tasks, so that running ones are to be cancelled too."""
        self.reason: TaskEngineError | None = None
        """Why tasks that have not started never will, once all of them are cancelled."""
        self.tasks: CancelledTasks | None = None
        """Tasks that were cancelled one by one, if there are any."""

    def cancel_all(self, reason: TaskEngineError | None = None) -> bool:
        """Cancel all tasks that have not started, for a reason, or for the client; return whether that is news."""
        if self.is_by_client or (reason is not None and self.reason is not None):
            return False
        self.is_by_client = reason is None
        self.reason = self.reason or reason or cancelled()
        return True

    def cancel(self, positions: Iterable[int], tasks: int, results: Results) -> bool:
        """Cancel these of a package's `tasks` tasks, as far as they have no result; return whether that is news.

        Raises Overloaded where they are too scattered.
        """
        return not self.is_by_client and self._marks(tasks).add(filter(results.lacks, positions))

    def cancel_runs(self, runs: Sequence[tuple[int, int]], tasks: int, results: Results) -> bool:
        """Cancel runs of tasks, (first, stop), like `cancel`."""
        if self.is_by_client or not runs:
            return False
        return self._marks(tasks).add_runs(_common(runs, results.gaps()))

    def is_over(self, missing: int) -> bool:
        """Return whether all tasks without an answer, of which there are `missing`, are cancelled."""
        return self.reason is not None or (self.tasks is not None and self.tasks.left == missing)

    def runs(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield those of the tasks from `first` to `stop` that the client has cancelled, as runs (first, stop)."""
        if self.is_by_client:
            yield first, stop
        elif self.tasks is not None:
            while (first := self.tasks.begin(first, stop)) < stop:
                end = self.tasks.end(first, stop)
                yield first, end
                first = end

    def _marks(self, tasks: int) -> CancelledTasks:
        self.tasks = self.tasks or CancelledTasks(tasks)
        return self.tasks


def _common(some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the runs (first, stop) that lie in both; each is in order, and its runs do not overlap."""
    mine = theirs = 0
    while mine < len(some) and theirs < len(others):
        first, stop = max(some[mine][0], others[theirs][0]), min(some[mine][1], others[theirs][1])
        if first < stop:
            yield first, stop
        if some[mine][1] == stop:
            mine += 1
        else:
            theirs += 1
