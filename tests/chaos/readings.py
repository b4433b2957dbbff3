"""Holds what clients read of streams against what the generators yield, and the generators against their ends. Pure.

The generator of the stream `id` yields `tasks.value_of(id, 0)`, `value_of(id, 1)`, …, as many as it was told to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tests.chaos.tasks import CLOSED, value_of


class Reading:
    """What one client has read of a stream of `count` values; `wrong` has a line for all that should not have come."""

    def __init__(self, id: str, count: int) -> None:
        self.id = id
        self.count = count
        self.came = 0
        self.is_over = False
        self.wrong: list[str] = []

    def take(self, value: object) -> None:
        """Take a value that came."""
        if self.is_over:
            self.wrong.append(f"{value!r} came after the end")
        elif self.came == self.count or value != value_of(self.id, self.came):
            self.wrong.append(f"{value!r} came where value {self.came} of {self.count} of {self.id} was due")
        self.came += 1

    def end(self, error: str = "", *, after_all: bool = False) -> None:
        """Take the end, or the error in which the stream ended; with `after_all` it comes after all values."""
        if self.is_over:
            self.wrong.append(f"{self.id} ended again ({error or 'without an error'})")
        elif self.came < self.count and (after_all or not error):
            ended = error or "an end"
            self.wrong.append(f"{ended} came after {self.came} of {self.count} values of {self.id}")
        self.is_over = True


def without_closings(runs: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return what each process wrote, less the ends of generators."""
    return [[id for id in process if not id.startswith(CLOSED)] for process in runs]


def unclosed(
    runs: Mapping[int, Sequence[str]], streams: Collection[str], beside: Collection[str], alive: Collection[int]
) -> list[str]:
    """Return the generators that never ran their `finally`, though their process could have.

    `runs` is what each process wrote, by pid, and `alive` the processes that have not died. One that died takes a
    generator with it: the last one that it began, or all that ran beside each other, whose ids are in `beside`.
    """
    return [id for pid, process in runs.items() for id in _unclosed(process, streams, beside, pid in alive)]


def _unclosed(
    process: Sequence[str], streams: Collection[str], beside: Collection[str], is_alive: bool
) -> Iterator[str]:
    closed = {line.removeprefix(CLOSED) for line in process if line.startswith(CLOSED)}
    begun = [id for id in process if id in streams]
    for id in begun:
        ended_with_it = not is_alive and (id in beside or id == process[-1])
        if id not in closed and not ended_with_it:
            yield id
