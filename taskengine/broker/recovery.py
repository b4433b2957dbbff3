"""Matches what workers answer, or leave behind when they die, with what they were given. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from taskengine.broker.lane import Slice
from taskengine.broker.package import Package
from taskengine.broker.streams import StreamResults
from taskengine.errors import ProtocolError

Answered = tuple[int, int, int, int, int, bytes]
"""Tasks of a slice that ran, in a worker's answer: job, first, stop, how many failed, elapsed ns, body."""
Matched = list[tuple[Slice, Sequence[Answered]]]
"""Slices of a batch of which tasks ran, with their entries of the answer."""


class Account(NamedTuple):
    """A dead worker's progress in a batch, as `_fastpath.ProgressPage.read` returns it."""

    entries: list[Answered]
    partial: Answered | None
    """An entry that the worker had begun."""
    running: tuple[int, int] | None
    """The job and the position of the task that ran."""


SENSELESS = Account([], None, (0, 0))
"""The account of a worker that overwrote its own: any task of the batch may have run."""

BEGUN = Account([], None, (0, 1))
"""The account of a batch of one task that had begun, and of which nothing else is known; see `begun`."""


def begun(slices: list[Slice]) -> Account:
    """Return the account of a batch whose first task ran."""
    return Account([], None, (slices[0].package.flight.job, slices[0].first))


def matched(name: str, slices: list[Slice], entries: Sequence[Answered]) -> tuple[Matched, list[Slice]]:
    """Return the entries of an answer that belong to each slice, and what was handed back.

    Raises ProtocolError unless the entries are the beginning of the slices, in order.
    """
    done: Matched = []
    rest: list[Slice] = []
    place = 0
    for slice in slices:
        begin, at, job = place, slice.first, slice.package.flight.job
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
) -> tuple[Matched, list[Slice]]:
    """Match the account of a dead worker as `matched` matches an answer.

    Raises ProtocolError also where the account makes no sense.
    """
    if account is SENSELESS:
        raise ProtocolError(f"worker {name} overwrote its account")
    entries, partial, _ = account
    if partial is not None and partial[0] in packages:
        job, first, stop, failed, elapsed_ns, body = partial
        body = packages[job].mend(stop - first, body)
        entries = [*entries, (job, first, stop, failed, elapsed_ns, body)]
    return matched(name, slices, entries)


def without_cut_streams(done: Matched) -> tuple[Matched, list[Slice]]:
    """Separate the streams whose last values may be lost with the worker that left these accounts behind.

    Values are sent, and an account is read: so a stream may be finished by the account, and its values not here.
    """
    cut = [slice for slice, _ in done if _is_cut(slice.package)]
    return [(slice, entries) for slice, entries in done if slice not in cut] if cut else done, cut


def _is_cut(package: Package) -> bool:
    return isinstance(package.results, StreamResults) and not package.results.has_all
