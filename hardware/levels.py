"""The levels of an output's lines for a value. Pure.

An output's lines are claimed at these levels, so that it has its value from the first moment on: gpiozero would claim
them low first, whatever that means to the device, and set them afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

from .device_config import Device, Value
from .device_types import Role

Numbers = tuple[float, ...]


class Claim(NamedTuple):
    """A line, a GPIO or a channel of a board: its level from the first moment on.

    `idle` is its level while it is off and without pulses.
    """

    gpio: int | str
    level: bool
    idle: bool


def claims(device: Device, value: Value) -> Iterator[Claim]:
    """Yield the lines of an output with this value; lines with pulses are idle until they are written."""
    idle = not device.options.get("active_high", True)
    for gpio, share in _shares(device, value):
        yield Claim(gpio, share == 1 if not idle else share != 1, idle)


def needs_pulses(device: Device, value: Value) -> bool:
    """Return whether an output has this value only with pulses: a position, a tone, or a partial duty cycle."""
    if device.kind.role in (Role.SERVO, Role.TONE):
        return value is not None
    return any(number not in (-1, 0, 1) for number in (value if isinstance(value, tuple) else (value,)))


def _shares(device: Device, value: Value) -> Iterator[tuple[int | str, float]]:
    """Yield each line, and the share of the time for which it is active."""
    role, pins = device.kind.role, device.pins
    if role is Role.DRIVE:
        for group, speed in zip(device.kind.groups, cast(Numbers, value), strict=True):
            yield from _turning(*pins[group], speed=speed)
    elif role is Role.COLOUR:
        yield from zip((pins[name] for name in device.kind.pins), cast(Numbers, value), strict=True)
    elif role is Role.MOTOR:
        speed = cast(float, value)
        if "phase" in pins:
            yield from ((pins["phase"], float(speed < 0)), (pins["enable"], abs(speed)))
        else:
            yield from _turning(*pins.values(), speed=speed)
    elif role in (Role.SERVO, Role.TONE):  # pulses only
        yield from ((pin, 0.0) for pin in pins.values())
    else:
        yield from ((pin, float(cast(float, value))) for pin in pins.values())


def _turning(
    forward: int | str, backward: int | str, enable: int | str | None = None, *, speed: float
) -> Iterator[tuple[int | str, float]]:
    """Yield the lines of a motor. With `enable`, the bridge is on all the time."""
    yield from ((forward, max(speed, 0.0)), (backward, max(-speed, 0.0)))
    if enable is not None:
        yield enable, 1.0
