"""Moves the outputs of a lane that follow a trajectory or an effect. Pure.

A trajectory follows its output's own clock, an effect the machine's. `due` says when `_go_on` is to be called.
"""

from __future__ import annotations

import math

from .device_config import Value
from .effects import Beat, Effect, Fade, Sink
from .motion import FRAME_S, Motion, Move, Plan, Ramp, State, Trapezoid
from .outputs import Output
from .values import amount_of, numbers_of

PAUSE_S = 2 * FRAME_S
"""A longer time between two looks at a motion delays it, in s."""


class Movements:
    """The outputs in motion; what drives them, and brings them to rest, is `Control`."""

    def __init__(self) -> None:
        self._moving: dict[Output, None] = {}
        self._frame = 0.0
        """When the outputs in motion move next."""
        self.due = math.inf
        """The latest time at which `tick` must be called, in s."""

    def _drive(self, output: Output, value: Value, now: float) -> None:
        raise NotImplementedError

    def _rest(self, output: Output, now: float) -> None:
        raise NotImplementedError

    def _lose(self, output: Output) -> None:
        raise NotImplementedError

    def _go_on(self, now: float) -> None:
        """Move the outputs in motion, at most at 50 Hz."""
        is_frame = not self._frame - FRAME_S < now < self._frame
        if is_frame:
            self._frame = now + FRAME_S
        for output in list(self._moving):
            motion = output.motion
            if isinstance(motion, Beat):
                output.write(motion.at(now)[0])
                continue
            if isinstance(motion, Sink):
                self._sink(output, motion, now)
                continue
            if isinstance(motion, Effect):
                position, is_over = motion.at(now)
                if position == output.value and not is_over:
                    continue
            elif is_frame and motion is not None:
                self._advance(output, now)
                motion = output.motion or motion
                position, is_over = motion.at(output.clock)
            else:
                continue
            if is_over:
                self._drop(output)
            self._drive(output, position, now)

    def _sink(self, output: Output, sink: Sink, now: float) -> None:
        """Go on with a ramp to rest, never up, whatever else lowers the output meanwhile."""
        value, is_over = sink.at(now)
        if is_over:
            if sink.is_late:
                self._lose(output)
            self._rest(output, now)
            return
        pairs = zip(numbers_of(value), numbers_of(output.value), strict=True)
        numbers = tuple(min(pair, key=abs) for pair in pairs)
        if numbers != numbers_of(output.value):
            self._drive(output, numbers if isinstance(value, tuple) else numbers[0], now)

    def _advance(self, output: Output, now: float) -> None:
        """Advance the clock of a motion; after a pause the motion is planned again from where it stands."""
        passed, output.seen = now - output.seen, now
        limits = output.limits
        if passed > PAUSE_S and output.plan is not None and limits is not None and limits.acceleration < math.inf:
            output.motion = output.plan(State(output.position or 0.0), output.clock)
        output.clock += min(max(passed, 0.0), PAUSE_S)

    def _state(self, output: Output, now: float) -> State:
        """Return the position and the speed of an output, as far as they are known."""
        motion = output.motion
        if motion is None or isinstance(motion, (Effect, Ramp)):
            output.seen = now
            return State(output.position or 0.0)
        self._advance(output, now)
        return (output.motion or motion).state(output.clock)

    def _set_off(self, output: Output, plan: Plan, now: float) -> None:
        state = self._state(output, now)
        output.plan = plan
        self._start(output, plan(state, output.clock), now)

    def _play(self, output: Output, effect: Effect, now: float) -> None:
        """Begin an effect with the output's present value, unless its board is lost."""
        self._drop(output)
        if output.is_lost:
            return
        output.motion = effect
        self._moving[output] = None
        self.due = min(self.due, effect.due(now))

    def _shape(self, output: Output, value: Value, now: float) -> None:
        """Give a value to an output that ramps up, or that beats while it is on."""
        if not output.beat:
            self._ramp(output, value, now)
        elif not (value and isinstance(output.motion, Beat)):
            self._drop(output)
            self._drive(output, value, now)
            if value:
                self._play(output, Beat(output.beat, now), now)

    def _ramp(self, output: Output, value: Value, now: float) -> None:
        if isinstance(output.motion, Ramp):
            self._advance(output, now)
            there = numbers_of(output.motion.at(output.clock)[0])
        else:
            output.seen, there = now, numbers_of(output.value)
        self._drop(output)
        ramp = Ramp(there, numbers_of(value), output.clock, 1 / output.ramp)
        value, is_over = ramp.at(output.clock)
        self._drive(output, value, now)
        if not is_over:
            self._start(output, ramp, now)

    def _start(self, output: Output, motion: Motion, now: float) -> None:
        """Begin a motion, unless the output's board is lost: it would go on once the board is back."""
        if output.is_lost:
            return
        output.motion = motion
        self._moving[output] = None
        if self._frame > now + FRAME_S:
            self._frame = now
        self._frame = max(self._frame, now)
        self.due = min(self.due, self._frame)

    def _hold_back(self, output: Output) -> None:
        """Drop a motion, but not one to rest, and let one that lowers the output go on from where it is."""
        motion, plan, position = output.motion, output.plan, output.position or 0.0
        if isinstance(motion, Sink):
            return
        if isinstance(motion, Fade) and amount_of(motion.target) <= amount_of(output.value):
            output.motion = motion._replace(start=output.value)
        elif isinstance(motion, (Move, Trapezoid)) and plan and 0 <= motion.target * position <= position * position:
            output.motion = plan(State(position), output.clock)
        else:
            self._drop(output)

    def _drop(self, output: Output) -> None:
        output.motion = output.plan = None
        self._moving.pop(output, None)
