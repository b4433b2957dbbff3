"""Matches what workers answer, or leave behind when they die, with what they were given. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from taskengine.broker.lane import Slice
from taskengine.broker.package import Package
from taskengine.errors import ProtocolError

Answered = tuple[int, int, int, int, int, bytes]
"""Tasks of a slice that ran, in a worker's answer: job, first, stop, how many failed, elapsed ns, body."""
Account = tuple[list[Answered], Answered | None, tuple[int, int] | None]
"""A dead worker's progress in a batch: whole entries, part of one, and the job and position of the task that ran."""
SENSELESS: Account = ([], None, (0, 0))
"""The account of a worker that overwrote its own: any task of the batch may have run."""


def matched(
    name: str, slices: list[Slice], entries: Sequence[Answered]
) -> tuple[list[tuple[Slice, Sequence[Answered]]], list[Slice]]:
    """Return the entries of an answer that belong to each slice, and what was handed back.

    Raises ProtocolError unless the entries are the beginning of the slices, in order.
    """
    done: list[tuple[Slice, Sequence[Answered]]] = []
    rest: list[Slice] = []
    place = 0
    for slice in slices:
        begin, at, job = place, slice.first, slice.package.job
        while place < len(entries) and not rest and at < slice.stop:
            answered, first, stop, *_ = entries[place]
            if answered != job or first != at or not at < stop <= slice.stop:
                break
            at, place = stop, place + 1
        if place > begin:
            done.append((slice, entries[begin:place]))
        if at < slice.stop:
            rest.append(slice._replace(first=at))
    if place < len(entries):
        raise ProtocolError(f"worker {name} answered other tasks than it was given")
    return done, rest


def recovered(
    packages: Mapping[int, Package], name: str, slices: list[Slice], account: Account
) -> tuple[list[tuple[Slice, Sequence[Answered]]], list[Slice]]:
    """Match the account of a dead worker as `matched` matches an answer."""
    entries, part, _ = account
    if part is not None and part[0] in packages:
        job, first, stop, failed, elapsed_ns, body = part
        body = packages[job].mend(stop - first, body)
        entries = [*entries, (job, first, stop, failed, elapsed_ns, body)]
    return matched(name, slices, entries)
