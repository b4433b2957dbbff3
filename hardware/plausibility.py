"""Judges the readings of an input: too old, out of range, too fast, stuck, or missing. Pure.

A judged input has a trusted value, or a fault in words. The rules take an input with a fault at its worst value.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec


class Measurement(NamedTuple):
    """A measurement: its time and value; or when the input was found to have none, and the reason."""

    time: float
    value: Any
    reason: str = ""

    def told(self) -> dict[str, Any]:
        """Return the measurement as it is published, and as it stands in the state."""
        reading = {"time": self.time, "value": self.value}
        return {**reading, "reason": self.reason} if self.reason else reading


class Plausibility(msgspec.Struct, frozen=True):
    """The bounds of what an input may say.

    `least` and `most` are in its unit, `max_age` in s, `max_rate` in its unit per second. `stuck_after` is for how many
    seconds it may say the same.
    """

    least: float = -math.inf
    most: float = math.inf
    max_age: float = math.inf
    max_rate: float = math.inf
    stuck_after: float = math.inf


class Judge:
    """Judges the readings of one input since `now`."""

    def __init__(self, name: str, bounds: Plausibility, now: float) -> None:
        self.name = name
        self._bounds = bounds
        self.restart(now)

    def restart(self, now: float) -> None:
        """Forget all readings; from `now` on the first one is awaited."""
        self._began = now
        self._latest: Measurement | None = None
        self._value = 0.0
        """The last value, plausible or not."""
        self._valued_at = -math.inf
        self._changed_at = now
        self._fault = ""
        """The fault of the latest reading, whatever its age."""

    def take(self, reading: Measurement) -> None:
        """Take a reading; one that is older than the latest says nothing new."""
        if self._latest is not None and reading.time < self._latest.time:
            return
        self._latest = reading
        if reading.reason or reading.value is None:
            self._fault = f"{self.name} has no value: {reading.reason or 'it says nothing'}"
            return
        self._fault = self._judged(float(reading.value), reading.time)

    def _judged(self, value: float, at: float) -> str:
        """Return what is wrong with a value; "" if it is plausible."""
        bounds, last, passed = self._bounds, self._value, at - self._valued_at
        has_last = self._valued_at > -math.inf
        self._value, self._valued_at = value, at
        if not has_last or value != last:
            self._changed_at = at
        if not bounds.least <= value <= bounds.most:
            return f"{self.name} is outside of its range, {bounds.least:g} to {bounds.most:g}"
        if has_last and abs(value - last) > bounds.max_rate * passed:
            return f"{self.name} changes faster than {bounds.max_rate:g} a second"
        return ""

    def fault(self, now: float) -> str:
        """Return what is wrong with the input at this time; "" if its value can be trusted.

        The text stays the same as long as the fault does.
        """
        latest, bounds = self._latest, self._bounds
        if latest is None:
            return f"{self.name} has not been measured" + (" in time" if self.is_late(now) else " yet")
        if self._fault:
            return self._fault
        if now >= latest.time + bounds.max_age:
            return f"{self.name} was measured longer than {bounds.max_age:g} s ago"
        if now >= self._changed_at + bounds.stuck_after:
            return f"{self.name} has said the same for {bounds.stuck_after:g} s"
        return ""

    def judged(self, now: float) -> tuple[float | None, str]:
        """Return its value, None if it cannot be trusted, and what is wrong with it."""
        fault = self.fault(now)
        return (None if fault else self._value), fault

    def is_awaited(self, now: float) -> bool:
        """Return whether it had no reading yet, for no longer than a reading may be old."""
        return self._latest is None and not self.is_late(now)

    def is_late(self, now: float) -> bool:
        """Return whether it had no reading since the beginning, for longer than a reading may be old."""
        return self._latest is None and now >= self._began + self._bounds.max_age

    def due(self, now: float) -> float:
        """Return when its judgement changes next without a reading."""
        bounds, latest = self._bounds, self._latest
        if latest is None:
            moments = [self._began + bounds.max_age]
        else:
            moments = [latest.time + bounds.max_age, self._changed_at + bounds.stuck_after]
        return min((moment for moment in moments if moment > now), default=math.inf)
