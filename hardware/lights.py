"""The tasks of lights: on, off, blinking, pulsing and fading, with the names and arguments of gpiozero's LEDs.

A light is a switch, a level or a colour, or a group of such (`groups.py`), whose lights begin together. The owner plays
the effect; the next command replaces it, and the end of a lease, a call to rest or a stop ends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from taskengine import BadArguments, origin

from .device_config import DeviceLimits, Value
from .device_types import Role
from .effects import Blink, Effect, Fade
from .lane_commands import LaneCommands
from .motion import FRAME_S
from .outputs import Output
from .values import checked, is_number, numbers_of, seconds

LIGHTS = (Role.SWITCH, Role.LEVEL, Role.COLOUR)


class Lights(LaneCommands):
    """The tasks of lights."""

    def led_on(self, device: str) -> None:
        """Switch a light on, or each light of a group."""
        self._write(device, lambda output: _bounds(output)[1])

    def led_off(self, device: str) -> None:
        """Switch a light off, or each light of a group."""
        self._write(device, lambda output: _bounds(output)[0])

    def led_toggle(self, device: str) -> None:
        """Switch a light off if it is on, and on if it is off; or each light of a group."""
        self._write(device, lambda output: _bounds(output)[output.value == _bounds(output)[0]])

    def led_blink(
        self,
        device: str,
        on_time: float = 1.0,
        off_time: float = 1.0,
        fade_in_time: float = 0.0,
        fade_out_time: float = 0.0,
        on_color: list[float] | None = None,
        off_color: list[float] | None = None,
        n: int | None = None,
    ) -> None:
        """Switch a light on and off, `n` times or until the next command; answers at once.

        Times are in s. Only levels and colours fade. The colours of an RGBLED are white and black by default.
        """
        times = [seconds(time, 0.0, "time") for time in (on_time, off_time, fade_in_time, fade_out_time)]
        self._play(device, lambda output, now: _blink(output, times, on_color, off_color, n, now))

    def led_pulse(
        self,
        device: str,
        fade_in_time: float = 1.0,
        fade_out_time: float = 1.0,
        on_color: list[float] | None = None,
        off_color: list[float] | None = None,
        n: int | None = None,
    ) -> None:
        """Fade a level or a colour in and out, `n` times or until the next command; answers at once."""
        times = [0.0, 0.0, *(seconds(time, 0.0, "time") for time in (fade_in_time, fade_out_time))]
        self._play(device, lambda output, now: _blink(output, times, on_color, off_color, n, now))

    def led_fade(self, device: str, value: Any, duration: float = 1.0) -> float:
        """Bring a level or a colour evenly to a value within `duration` s, or as fast as its limits allow.

        Answers at once, with the seconds it takes.
        """
        duration = seconds(duration, 0.0)
        with self._outputs(device, *LIGHTS) as (owner, outputs, now):
            goals = [(output, _goal(output, value)) for output in outputs]
            fades = [(output, _fade(output, goal, duration, now)) for output, goal in goals if output.limits is None]
            owner.control.play(fades, origin(), now)
            moves = [
                owner.control.move(output, cast(float, goal), duration, _easing(output.limits), origin(), now)
                for output, goal in goals
                if output.limits is not None
            ]
        return max(*(fade.duration for _, fade in fades), *moves, 0.0)

    def _play(self, device: str, effect: Callable[[Output, float], Effect]) -> None:
        with self._outputs(device, *LIGHTS) as (owner, outputs, now):
            owner.control.play([(output, effect(output, now)) for output in outputs], origin(), now)

    def _write(self, device: str, value: Callable[[Output], Value]) -> None:
        with self._outputs(device, *LIGHTS) as (owner, outputs, now):
            for output in outputs:
                owner.control.check(output, value(output), origin(), now)
            for output in outputs:
                owner.control.command(output, value(output), origin(), now)


def _bounds(output: Output) -> tuple[Value, Value]:
    """Return the values off and on of a light."""
    limits = output.device.limits
    if output.role is Role.COLOUR:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return (False, True) if limits is None else (limits.least, limits.most)


def _blink(output: Output, times: list[float], on_color: Any, off_color: Any, n: Any, now: float) -> Blink:
    """Make an effect of gpiozero's arguments. Raises BadArguments."""
    name, (on_time, off_time, fade_in, fade_out) = output.device.name, times
    if not (n is None or (is_number(n, 1, math.inf) and isinstance(n, int))):
        raise BadArguments(f"n is a whole number from 1, or null, not {n!r:.100}")
    if sum(times) < FRAME_S:
        raise BadArguments(f"a cycle takes at least {FRAME_S:g} s, not {sum(times):.3g}")
    if output.role is Role.SWITCH and (fade_in or fade_out):
        raise BadArguments(f"{name} is on or off, and cannot fade: that takes a PWMLED, or pwm = true for a group")
    if output.limits is not None or output.ramp:
        raise BadArguments(f"{name} has a limit of speed, or a soft_start, and cannot blink: led.fade obeys these")
    off, on = _bounds(output)
    if output.role is Role.COLOUR:
        off = off if off_color is None else checked(output, off_color)
        on = on if on_color is None else checked(output, on_color)
    elif not (on_color is None and off_color is None):
        raise BadArguments(f"{name} has no colours")
    return Blink(on, off, on_time, off_time, fade_in, fade_out, n, now)


def _easing(limits: DeviceLimits) -> str:
    return "linear" if math.isinf(limits.acceleration) else "smooth"


def _goal(output: Output, value: Any) -> Value:
    if output.role is Role.SWITCH:
        raise BadArguments(f"{output.device.name} is on or off, and cannot fade: that takes a PWMLED")
    return checked(output, value)


def _fade(output: Output, goal: Value, duration: float, now: float) -> Fade:
    rise = max(after - before for before, after in zip(numbers_of(output.value), numbers_of(goal), strict=True))
    return Fade(output.value, goal, max(duration, rise * output.ramp), now)
