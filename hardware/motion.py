"""Trajectories: position and speed of an output at a time. Pure; positions in the output's unit, times in s.

The easings and the duration that limits require are standard: with the distance as a function of time, both from 0 to
1, `sine` has the largest speed pi/2 and acceleration pi^2/2, `smooth` (the minimum-jerk polynomial of Flash and Hogan,
J. Neurosci. 5, 1985) 15/8 and 10/sqrt(3). An output that gets a new target while it moves goes there with a trapezoidal
speed profile (`Trapezoid`) that begins with its present speed.

No trajectory leaves the limits of the position: each ends at rest within them and brakes no harder than its limit, so
that a trajectory that replaces it at any point has room left to brake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from .device_config import DeviceLimits, Value

FRAME_S = 0.02
"""How often an output moves: 50 Hz, the rate of a servo's pulses."""


class State(NamedTuple):
    """The position and the speed of an output."""

    position: float
    speed: float = 0.0


class Motion(Protocol):
    """A trajectory."""

    def at(self, now: float) -> tuple[Value, bool]:
        """Return the position, and whether it is the last one."""

    def state(self, now: float) -> State:
        """Position and speed, of an output that has such."""


Plan = Callable[[State, float], Motion]
"""Makes a motion from a state, at a time."""


class Easing(NamedTuple):
    """The distance as a function of time, its slope, and its largest speed and acceleration."""

    way: Callable[[float], float]
    slope: Callable[[float], float]
    speed: float
    acceleration: float


def _linear(t: float) -> float:
    return t


def _even(t: float) -> float:
    return 1.0


def _sine(t: float) -> float:
    return (1 - math.cos(math.pi * t)) / 2


def _sine_slope(t: float) -> float:
    return math.sin(math.pi * t) * math.pi / 2


def _smooth(t: float) -> float:
    return t * t * t * (10 + t * (6 * t - 15))


def _smooth_slope(t: float) -> float:
    return 30 * (t * (1 - t)) ** 2


EASINGS: Mapping[str, Easing] = {
    "linear": Easing(_linear, _even, 1.0, math.inf),
    "sine": Easing(_sine, _sine_slope, math.pi / 2, math.pi**2 / 2),
    "smooth": Easing(_smooth, _smooth_slope, 15 / 8, 10 / math.sqrt(3)),
}


def least_duration(distance: float, easing: Easing, limits: DeviceLimits) -> float:
    """Return the shortest time, in s, for a move over the distance."""
    distance = abs(distance)
    by_speed: float = distance * easing.speed / limits.speed
    if math.isinf(limits.acceleration):
        return by_speed
    return max(by_speed, math.sqrt(distance * easing.acceleration / limits.acceleration))


class Move(NamedTuple):
    """A move from `start` to `target` within `duration` s."""

    start: float
    target: float
    began: float
    duration: float
    easing: Easing

    @property
    def end(self) -> float:
        """The time at which it ends."""
        return self.began + self.duration

    def at(self, now: float) -> tuple[float, bool]:
        """See `Motion`."""
        t = self._part(now)
        if t >= 1:
            return self.target, True
        return self.start + (self.target - self.start) * min(1.0, self.easing.way(t)), False

    def state(self, now: float) -> State:
        """See `Motion`."""
        position, is_over = self.at(now)
        if is_over:
            return State(position)
        return State(position, (self.target - self.start) * self.easing.slope(self._part(now)) / self.duration)

    def _part(self, now: float) -> float:
        return max(0.0, (now - self.began) / self.duration) if self.duration > 0 else 1.0


class Sweep(NamedTuple):
    """A motion to and fro between `low` and `high`, beginning at `low`.

    `period` s for both ways, `cycles` times or for ever.
    """

    low: float
    high: float
    began: float
    period: float
    cycles: int | None

    def at(self, now: float) -> tuple[float, bool]:
        """See `Motion`."""
        turns = self._turns(now)
        if self.cycles is not None and turns >= self.cycles:
            return self.low, True
        return self.low + (self.high - self.low) * (1 - math.cos(2 * math.pi * turns)) / 2, False

    def state(self, now: float) -> State:
        """See `Motion`."""
        position, is_over = self.at(now)
        if is_over:
            return State(position)
        return State(
            position, (self.high - self.low) * math.sin(2 * math.pi * self._turns(now)) * math.pi / self.period
        )

    def left(self, now: float) -> int | None:
        """Return how many cycles are left, the present one included."""
        return None if self.cycles is None else max(1, self.cycles - int(self._turns(now)))

    def _turns(self, now: float) -> float:
        return max(0.0, now - self.began) / self.period


class Then(NamedTuple):
    """A motion, followed by a sweep from where it ends."""

    first: Motion
    rest: Sweep

    def at(self, now: float) -> tuple[Value, bool]:
        """See `Motion`."""
        return self.rest.at(now) if now >= self.rest.began else (self.first.at(now)[0], False)

    def state(self, now: float) -> State:
        """See `Motion`."""
        return self.rest.state(now) if now >= self.rest.began else self.first.state(now)


class Ramp(NamedTuple):
    """Duty cycles or speeds, each of which grows to its target by `rate` a second, and sinks at once."""

    start: tuple[float, ...]
    target: tuple[float, ...]
    began: float
    rate: float

    def at(self, now: float) -> tuple[Value, bool]:
        """See `Motion`."""
        grown = self.rate * max(0.0, now - self.began)
        pairs = zip(self.start, self.target, strict=True)
        found = tuple(_grown(start, target, grown) for start, target in pairs)
        return (found if len(found) > 1 else found[0]), found == self.target

    def state(self, now: float) -> State:
        """See `Motion`; a motion that replaces this one begins at the value."""
        return State(0.0)


def _grown(start: float, target: float, grown: float) -> float:
    # a change of direction goes by way of standing still
    least = abs(start) if start * target > 0 else 0.0
    return math.copysign(min(abs(target), least + grown), target)


class Trapezoid:
    """A move to `target`, ending at rest, from a position and a speed: as fast as the limits allow, or in `duration` s.

    It speeds up, goes on, and brakes. An output that moves the other way, or too fast to stop at the target, brakes
    first.
    """

    def __init__(self, start: State, target: float, began: float, limits: DeviceLimits, duration: float = 0.0) -> None:
        self._start = start
        self.target = target
        self._began = began
        if math.isinf(limits.acceleration):
            self._plan_even(limits, duration)
        else:
            self._plan(limits, duration)
        self.end = began + sum(part for part, _ in self._parts)

    def _plan_even(self, limits: DeviceLimits, duration: float) -> None:
        way = self.target - self._start.position
        took = max(abs(way) / limits.speed, duration)
        self._start = State(self._start.position, way / took if took > 0 else 0.0)
        self._parts = [(took, 0.0)]

    def _plan(self, limits: DeviceLimits, duration: float) -> None:
        pull = limits.acceleration
        position, speed = self._start
        # the direction from where it would stand if it braked now
        sign = math.copysign(1.0, self.target - position - speed * abs(speed) / (2 * pull))
        way, speed = sign * (self.target - position), sign * speed
        square = max(0.0, pull * way + speed * speed / 2)
        cruise = min(limits.speed, math.sqrt(square))
        if duration > 0:
            cruise = min(cruise, _slower(way, speed, pull, square, duration))
        change = cruise - speed
        by_change = (cruise * cruise - speed * speed) / (2 * pull) * math.copysign(1.0, change)
        even = way - by_change - cruise * cruise / (2 * pull)
        self._parts = [
            (abs(change) / pull, math.copysign(sign * pull, sign * change)),
            (max(0.0, even) / cruise if cruise > 0 else 0.0, 0.0),
            (cruise / pull, -sign * pull),
        ]

    def at(self, now: float) -> tuple[float, bool]:
        """See `Motion`."""
        return self.state(now).position, now >= self.end

    def state(self, now: float) -> State:
        """See `Motion`."""
        if now >= self.end:
            return State(self.target)
        position, speed = self._start
        left = max(0.0, now - self._began)
        for part, pull in self._parts:
            step = min(left, part)
            position += (speed + pull * step / 2) * step
            speed += pull * step
            left -= step
            if left <= 0:
                break
        return State(position, speed)


def _slower(way: float, speed: float, pull: float, square: float, duration: float) -> float:
    """Return the speed for the middle part so that the move takes `duration` s in all.

    Infinite if that is too short.
    """
    if speed > 0:
        rest, braking = way - speed * speed / (2 * pull), speed / pull
        if duration <= braking:
            return math.inf
        if rest < speed * (duration - braking):
            return max(rest, 0.0) / (duration - braking)
    half = (pull * duration + speed) / 2
    root = half * half - square
    return half - math.sqrt(root) if root >= 0 and half > 0 else math.inf


def go(
    start: State, target: float, began: float, limits: DeviceLimits | None, duration: float, easing: Easing
) -> Move | Trapezoid:
    """Plan a move that takes `duration` s, or as long as the limits require."""
    if limits is None:
        return Move(start.position, target, began, duration, easing)
    if start.speed and limits.acceleration < math.inf:
        return Trapezoid(start, target, began, limits, duration)
    distance = target - start.position
    return Move(start.position, target, began, max(duration, least_duration(distance, easing, limits)), easing)
