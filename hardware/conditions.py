"""Conditions of rules: text such as `distance < 0.2 or not bumper` is read into terms over inputs and causes. Pure.

A term compares the value of an input with a number, or asks whether a switch is on (`door`) or off (`not door`), or
names a cause. A term over an input without a trusted value holds: a sensor that has failed counts as its worst value.
So a condition has no negation but that of a switch, and is all terms joined by `and`, or all joined by `or`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

LINK, POWER, FAULT = "link lost", "undervoltage", "lane fault"
CAUSES: Mapping[str, str] = {
    LINK: "a lease has ended while its device was moving or on",
    POWER: "the firmware reports undervoltage",
    FAULT: "the process that had the lane's pins has died since the last arm",
}
"""What a condition may name beside inputs."""
ON, OFF = "on", "off"
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TERM = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)\s*(<=|>=|<|>)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_SWITCH = re.compile(r"(not\s+)?([A-Za-z][A-Za-z0-9_-]*)")


class Term(NamedTuple):
    """A comparison of an input's value with a number; or whether a switch, or a cause, is on or off."""

    source: str
    comparison: str
    number: float = 0.0

    def holds(self, value: float) -> bool:
        """Return whether it holds for this value of its source."""
        compare = _COMPARISONS.get(self.comparison)
        if compare is not None:
            return compare(value, self.number)
        return bool(value) is (self.comparison == ON)

    def __str__(self) -> str:
        if self.comparison in _COMPARISONS:
            return f"{self.source} {self.comparison} {self.number:g}"
        return self.source if self.comparison == ON else f"not {self.source}"


class Condition(NamedTuple):
    """Terms of which all have to hold, or, with `is_any`, one."""

    terms: tuple[Term, ...]
    is_any: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Its inputs and causes."""
        return tuple(dict.fromkeys(term.source for term in self.terms))

    def holding(self, values: Mapping[str, float | None]) -> tuple[Term, ...]:
        """Return the terms by which it holds, none if it does not; a source without a trusted value is None."""
        found = []
        for term in self.terms:
            value = values[term.source]
            if value is None or term.holds(value):
                found.append(term)
        if self.is_any or len(found) == len(self.terms):
            return tuple(found)
        return ()

    def __str__(self) -> str:
        return (" or " if self.is_any else " and ").join(map(str, self.terms))


def parse(text: str) -> Condition:
    """Read a condition. Raises ValueError, whose text says what was found and what was expected."""
    parts = re.split(r"\s+(and|or)\s+", text.strip())
    joints = set(parts[1::2])
    if len(joints) > 1:
        raise ValueError("a condition joins its terms by `and`, or by `or`, not by both: write two rules")
    return Condition(tuple(map(_term, parts[::2])), joints == {"or"})


def _term(text: str) -> Term:
    if text in CAUSES:
        return Term(text, ON)
    compared = _TERM.fullmatch(text)
    if compared is not None:
        return Term(compared[1], compared[2], float(compared[3]))
    switch = _SWITCH.fullmatch(text)
    if switch is None:
        causes = ", ".join(CAUSES)
        raise ValueError(
            f"{text!r:.100} is no term: expected as `distance < 0.2`, `door`, `not door`, or one of {causes}"
        )
    return Term(switch[2], OFF if switch[1] else ON)
