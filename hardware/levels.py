"""What the lines of an output are at, for a value that it is told. Pure.

An output's lines are claimed at these levels, so that it has its value from the first moment on: gpiozero would claim
them low, whatever that means to the device, and tell them afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

from .device_config import Device, Value
from .device_types import Role

Numbers = tuple[float, ...]


class Claim(NamedTuple):
    """A line: its level from the first moment on, and `idle`, that where it is off and nothing is sent."""

    gpio: int
    level: bool
    idle: bool


def claims(device: Device, value: Value) -> Iterator[Claim]:
    """Yield the lines of an output that is to have this value.

    Where that takes pulses, they are idle until it is told.
    """
    idle = not device.options.get("active_high", True)
    for gpio, share in _shares(device, value):
        yield Claim(gpio, share == 1 if not idle else share != 1, idle)


def needs_pulses(device: Device, value: Value) -> bool:
    """Whether an output has this value by pulses only: a position, a tone, or a share of the time or speed."""
    if device.kind.role in (Role.SERVO, Role.TONE):
        return value is not None
    return any(number not in (-1, 0, 1) for number in (value if isinstance(value, tuple) else (value,)))


def _shares(device: Device, value: Value) -> Iterator[tuple[int, float]]:
    """Yield each line, and which share of the time it is active."""
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
    elif role in (Role.SERVO, Role.TONE):  # nothing but pulses
        yield from ((pin, 0.0) for pin in pins.values())
    else:
        yield from ((pin, float(cast(float, value))) for pin in pins.values())


def _turning(forward: int, backward: int, enable: int | None = None, *, speed: float) -> Iterator[tuple[int, float]]:
    """Yield the lines of a motor. The bridge of one that has `enable` is on all the time."""
    yield from ((forward, max(speed, 0.0)), (backward, max(-speed, 0.0)))
    if enable is not None:
        yield enable, 1.0
