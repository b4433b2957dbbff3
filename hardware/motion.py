"""Trajectories: where an output is at a time. Pure; positions in the output's unit, times in s, monotonic.

The easings and the time that limits ask for are of textbooks: with the way as a function of the time, both from 0 to 1,
`sine` has the largest speed pi/2 and acceleration pi^2/2, `smooth` (the minimum-jerk polynomial of Flash and Hogan,
J. Neurosci. 5, 1985) 15/8 and 10/sqrt(3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, cast

from taskengine_hardware.layout import Limits, Value

INSTANT_S = 0.001
FRAME_S = 0.02
"""How often an output moves: 50 Hz, as often as a servo is told anything."""


class Motion(Protocol):
    """A trajectory."""

    def at(self, now: float) -> tuple[Value, bool]:
        """The position, and whether it is the last one. `now` never decreases from call to call."""


class Easing(NamedTuple):
    """How the way grows with the time, and its largest speed and acceleration."""

    way: Callable[[float], float]
    speed: float
    acceleration: float


def _linear(t: float) -> float:
    return t


def _sine(t: float) -> float:
    return (1 - math.cos(math.pi * t)) / 2


def _smooth(t: float) -> float:
    return t * t * t * (10 + t * (6 * t - 15))


EASINGS: Mapping[str, Easing] = {
    "linear": Easing(_linear, 1.0, math.inf),
    "sine": Easing(_sine, math.pi / 2, math.pi**2 / 2),
    "smooth": Easing(_smooth, 15 / 8, 10 / math.sqrt(3)),
}


def least_duration(distance: float, easing: Easing, limits: Limits) -> float:
    """How long a move over the distance takes at least, in s."""
    distance = abs(distance)
    by_speed: float = distance * easing.speed / limits.speed
    if math.isinf(limits.acceleration):
        return by_speed
    return max(by_speed, math.sqrt(distance * easing.acceleration / limits.acceleration))


class Move(NamedTuple):
    """From `start` to `target` within `duration` s."""

    start: float
    target: float
    began: float
    duration: float
    easing: Easing

    def at(self, now: float) -> tuple[float, bool]:
        """See `Motion`."""
        t = (now - self.began) / self.duration if self.duration > 0 else 1.0
        if t >= 1:
            return self.target, True
        way = min(1.0, self.easing.way(max(0.0, t)))
        return self.start + (self.target - self.start) * way, False


class Sweep(NamedTuple):
    """To and fro between `low` and `high`, from `low` on, `period` s for both ways, `cycles` times or for ever."""

    low: float
    high: float
    began: float
    period: float
    cycles: int | None

    def at(self, now: float) -> tuple[float, bool]:
        """See `Motion`."""
        turns = max(0.0, now - self.began) / self.period
        if self.cycles is not None and turns >= self.cycles:
            return self.low, True
        return self.low + (self.high - self.low) * (1 - math.cos(2 * math.pi * turns)) / 2, False


class Then(NamedTuple):
    """A move, and a sweep from where it ends."""

    first: Move
    rest: Sweep

    def at(self, now: float) -> tuple[float, bool]:
        """See `Motion`."""
        return self.rest.at(now) if now >= self.rest.began else (self.first.at(now)[0], False)


class Pulse(NamedTuple):
    """`value` until `end`, then `after`."""

    value: Value
    after: Value
    end: float

    def at(self, now: float) -> tuple[Value, bool]:
        """See `Motion`."""
        return (self.after, True) if now >= self.end else (self.value, False)


class Approach:
    """To `target` as fast as the limits allow, which may be given another one on the way."""

    def __init__(self, start: float, target: float, began: float, limits: Limits, speed: float = 0.0) -> None:
        self._position = start
        self._speed = speed
        self._then = began
        self._limits = limits
        self.target = target

    def at(self, now: float) -> tuple[float, bool]:
        """See `Motion`."""
        step, self._then = min(now - self._then, 5 * FRAME_S), now
        if step <= 0:
            return self._position, False
        way = self.target - self._position
        # the speed from which it can still stop at the target (v^2 = 2 a s), and no more than what is left in a step
        most = min(self._limits.speed, math.sqrt(2 * self._limits.acceleration * abs(way)), abs(way) / step)
        change = self._limits.acceleration * step
        wanted = math.copysign(most, way)
        self._speed = min(max(wanted, self._speed - change), self._speed + change)
        self._position += self._speed * step
        left = self.target - self._position
        is_there = (left > 0) != (way > 0) or abs(left) < 1e-9 * (1 + abs(self.target))
        # what comes too fast to stop there goes past it, and comes back
        if is_there and abs(self._speed) <= max(change, abs(way) / step):
            self._position, self._speed = self.target, 0.0
            return self.target, True
        if not self._limits.least <= self._position <= self._limits.most:
            self._position = min(max(self._position, self._limits.least), self._limits.most)
            self._speed = 0.0
        return self._position, False


def speed_of(motion: Motion, now: float) -> float:
    """How fast an output is on its way, about."""
    if isinstance(motion, (Approach, Pulse)):
        return 0.0
    (before, _), (after, _) = motion.at(now - INSTANT_S), motion.at(now)
    return (cast(float, after) - cast(float, before)) / INSTANT_S
