"""Judges from a trial's observations whether anything moved without a live command. Pure.

A word is good for a lease from when it was said, and a driver's wheel may turn as long as one of its words is good.
While the line is cut nobody can be heard: then only what was said before is good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

LEASE_S = 0.5
GRACE_S = 0.05
"""How long after a lease has ended a wheel may still turn."""
SHORTEST_S = 0.005
"""A wheel that turns for less is not found out: clocks are read in other processes, before and after."""

Span = tuple[float, float]
"""From when to when, monotonic s; without end, to infinity."""


class Driven(msgspec.Struct, frozen=True):
    """A wheel in a round: how its driver spoke and fared, when it called, when the wheel turned, what was answered."""

    wire: str
    fate: str
    calls: list[float]
    turns: list[tuple[float, float | None]]
    said: str = ""


class Round(msgspec.Struct, frozen=True):
    """An outage of so many seconds: when it was prepared, began, ended and had no more effect; how each wheel fared."""

    outage: float
    begun: float
    cut: float
    mended: float
    over: float
    wheels: list[Driven]

    def of(self, wire: str, fate: str) -> Driven:
        """The wheel of a driver."""
        (found,) = (one for one in self.wheels if (one.wire, one.fate) == (wire, fate))
        return found


def spans(wheel: Driven) -> list[Span]:
    """When it turned."""
    return [(start, math.inf if end is None else end) for start, end in wheel.turns]


def unheard(round: Round, wheel: Driven, *, slack: float) -> list[Span]:
    """When the wheel turned although no live word was good, within the round.

    `slack` is what is added to a lease: how late an owner may act, and how long a word was on its way.
    """
    good = LEASE_S + slack
    words = [(call, call + good) for call in wheel.calls]
    silent = (round.cut + good, round.mended)
    within = [(max(start, round.begun), min(end, round.over)) for start, end in spans(wheel)]
    found = [rest for span in within for rest in minus(span, words)]
    found += [(max(start, silent[0]), min(end, silent[1])) for start, end in within]
    return [(start, end) for start, end in found if end - start > SHORTEST_S]


def minus(span: Span, others: Iterable[Span]) -> list[Span]:
    """The parts of a span that are in none of the others."""
    parts, (at, end) = [], span
    for first, last in sorted(others):
        if first >= end:
            break
        if first > at:
            parts.append((at, first))
        at = max(at, last)
    if at < end:
        parts.append((at, end))
    return parts


def drives_before(round: Round, wheel: Driven) -> bool:
    """It turned when the line was cut."""
    return any(start < round.cut < end for start, end in spans(wheel))


def drives_after(round: Round, wheel: Driven) -> bool:
    """It turned again after the line was mended."""
    return any(end > round.mended for _, end in spans(wheel))
