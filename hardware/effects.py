"""Effects of lights and sounds: a value as a function of the time, and the time of its next change. Pure; times in s.

An effect follows the machine's clock, which pauses do not delay: a process that wakes late goes on where the effect is
by then, and skips what it has missed. Fading values change at the bounds of frames of the whole machine, so that any
number of lights that fade wake their owner 50 times a second.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple, cast

from .device_config import Value
from .motion import FRAME_S, State


class Pulse(NamedTuple):
    """`value` until `end`, then `after`."""

    value: Value
    after: Value
    end: float

    @property
    def name(self) -> str:
        """The name of the effect in `devices.state`."""
        return "once"

    def at(self, now: float) -> tuple[Value, bool]:
        """Return the value, and whether it is the last one."""
        return (self.after, True) if now >= self.end else (self.value, False)

    def due(self, now: float) -> float:
        """Return when the value changes next."""
        return self.end

    def state(self, now: float) -> State:
        """See `Motion`; a motion that replaces this one begins at rest."""
        return State(0.0)


class Blink(NamedTuple):
    """`on` for `on_time`, `off` for `off_time`, fading in between; `cycles` times or for ever, beginning with `on`.

    It ends with `off`, after the last `off_time`, as gpiozero's.
    """

    on: Value
    off: Value
    on_time: float
    off_time: float
    fade_in: float
    fade_out: float
    cycles: int | None
    began: float

    @property
    def name(self) -> str:
        """See `Pulse`; without a time at either value it is what gpiozero calls a pulse."""
        return "blink" if self.on_time or self.off_time else "pulse"

    @property
    def period(self) -> float:
        """How long a cycle takes."""
        return self.fade_in + self.on_time + self.fade_out + self.off_time

    @property
    def after(self) -> Value:
        """The value at its end."""
        return self.off

    def at(self, now: float) -> tuple[Value, bool]:
        """See `Pulse`."""
        cycle = self._cycle(now)
        if self.cycles is not None and cycle >= self.cycles:
            return self.off, True
        risen, lit, fallen, _ = self._bounds(cycle)
        if now < risen:
            return self._between((_frame(now, risen - self.fade_in) - risen) / self.fade_in + 1), False
        if now < lit:
            return self.on, False
        if now < fallen:
            return self._between((fallen - _frame(now, lit)) / self.fade_out), False
        return self.off, False

    def due(self, now: float) -> float:
        """See `Pulse`."""
        risen, lit, fallen, end = self._bounds(self._cycle(now))
        if now < risen:
            return min(risen, _next_frame(now))
        if now < lit:
            return lit
        return min(fallen, _next_frame(now)) if now < fallen else end

    def state(self, now: float) -> State:
        """See `Pulse`."""
        return State(0.0)

    def _cycle(self, now: float) -> int:
        cycle = max(0, math.floor((now - self.began) / self.period))
        # the division may be wrong by one, and `due` names the bounds
        while now < self.began + cycle * self.period and cycle:
            cycle -= 1
        while now >= self.began + (cycle + 1) * self.period:
            cycle += 1
        return cycle

    def _bounds(self, cycle: int) -> tuple[float, float, float, float]:
        """Return when the parts of a cycle end."""
        begin, end = (self.began + number * self.period for number in (cycle, cycle + 1))
        parts = list(accumulate((begin, self.fade_in, self.on_time, self.fade_out)))[1:]
        risen, lit, fallen = (min(part, end) for part in parts)
        return risen, lit, fallen, end

    def _between(self, part: float) -> Value:
        return mixed(self.off, self.on, part)


class Fade(NamedTuple):
    """From `start` to `target` in `duration` s, evenly."""

    start: Value
    target: Value
    duration: float
    began: float

    @property
    def name(self) -> str:
        """See `Pulse`."""
        return "fade"

    @property
    def after(self) -> Value:
        """The value at its end."""
        return self.target

    def at(self, now: float) -> tuple[Value, bool]:
        """See `Pulse`."""
        if now >= self.began + self.duration:
            return self.target, True
        return mixed(self.start, self.target, (_frame(now, self.began) - self.began) / self.duration), False

    def due(self, now: float) -> float:
        """See `Pulse`."""
        return min(self.began + self.duration, _next_frame(now))

    def state(self, now: float) -> State:
        """See `Pulse`."""
        return State(0.0)


class Sink(NamedTuple):
    """From `start` to rest in `duration` s, evenly: a stop by a ramp.

    `is_late` says that it began because the next command is late; a command or a renewal in time ends it. A renewal
    does not if `is_final`, because a rule has begun or ended meanwhile: it would move what the rule had stopped.
    """

    start: Value
    rest: Value
    duration: float
    began: float
    is_late: bool
    is_final: bool = False

    @property
    def may_end(self) -> bool:
        """Return whether a renewal in time ends it."""
        return self.is_late and not self.is_final

    @property
    def name(self) -> str:
        """See `Pulse`."""
        return "ramp"

    @property
    def after(self) -> Value:
        """The value at its end."""
        return self.rest

    def at(self, now: float) -> tuple[Value, bool]:
        """See `Pulse`."""
        return Fade(self.start, self.rest, self.duration, self.began).at(now)

    def due(self, now: float) -> float:
        """See `Pulse`."""
        return min(self.began + self.duration, _next_frame(now))

    def state(self, now: float) -> State:
        """See `Pulse`."""
        return State(0.0)


class Beat(NamedTuple):
    """A line that is on and toggles, each `half` s, as a sign of life for what is connected to it."""

    half: float
    began: float

    @property
    def name(self) -> str:
        """See `Pulse`."""
        return "beat"

    @property
    def after(self) -> Value:
        """The value of its output, whatever the level of the line."""
        return True

    def at(self, now: float) -> tuple[Value, bool]:
        """Return the level of the line, and that it is not the last one."""
        return Blink(True, False, self.half, self.half, 0.0, 0.0, None, self.began).at(now)

    def due(self, now: float) -> float:
        """See `Pulse`."""
        return Blink(True, False, self.half, self.half, 0.0, 0.0, None, self.began).due(now)

    def state(self, now: float) -> State:
        """See `Pulse`."""
        return State(0.0)


Effect = Pulse | Blink | Fade | Sink | Beat


def mixed(start: Value, target: Value, part: float) -> Value:
    """Return the value at this part of the way from one to the other."""
    part = min(max(part, 0.0), 1.0)
    if isinstance(start, tuple) and isinstance(target, tuple):
        pairs = zip(start, target, strict=True)
        return tuple(one + (other - one) * part for one, other in pairs)
    low, high = cast(float, start), cast(float, target)
    return low + (high - low) * part


def _frame(now: float, began: float) -> float:
    """Return when the present frame began, or the fading in it."""
    return max(math.floor(now / FRAME_S) * FRAME_S, began)


def _next_frame(now: float) -> float:
    after = (math.floor(now / FRAME_S) + 1) * FRAME_S
    return after if after > now else after + FRAME_S
