"""Packages for the broker, without a wire, and the answers that workers give to them."""

from __future__ import annotations

from collections.abc import Iterator

from taskengine.broker.lane import Batch, Slice
from taskengine.broker.package import Package
from taskengine.broker.recovery import Answered
from taskengine.errors import TaskEngineError

CHEAP_NS = 100


class Plain(Package):
    """A package whose results are bytes that name the tasks."""

    name = "plain"

    def name_of(self, position: int) -> str:
        return self.name

    def pieces_of(self, error: TaskEngineError, first: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        name = type(error).__name__.encode()
        for _, start, end in self.flight.chunks.between(first, stop):
            yield start, end, b"".join(b"<%d %s>" % (position, name) for position in range(start, end))


def package(
    tasks: int, *, kind: str = "k", lanes: list[tuple[str, int]] | None = None, client: bytes = b"client"
) -> Plain:
    index = b"".join(end.to_bytes(4, "little") for end in range(1, tasks + 1))
    made = Plain((client,), "serial", [], (kind,), index, bytes(tasks))
    made.lanes = [("", tasks)] if lanes is None else lanes
    return made


def answer(slice: Slice, first: int, stop: int, ns_a_task: int = CHEAP_NS) -> Answered:
    results = b"".join(b"<%d>" % position for position in range(first, stop))
    return slice.package.flight.job, first, stop, 0, ns_a_task * (stop - first), results


def answers(batch: Batch, ns_a_task: int = CHEAP_NS) -> list[Answered]:
    return [answer(slice, slice.first, slice.stop, ns_a_task) for slice in batch.slices]
