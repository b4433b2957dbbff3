"""Checks the values for devices, strictly by kind: no ambiguous value is converted. Pure."""

from __future__ import annotations

import math
from typing import Any, cast

from taskengine import BadArguments

from .device_config import Value, channels
from .device_types import Role
from .outputs import Output

LONGEST_S = 86400.0
"""How long, in s, anything that a client asks for may take: a day."""
_NONE_TOO = (Role.SERVO, Role.TONE)
"""Roles that take None, to turn the output off."""


def is_number(value: object, least: float, most: float) -> bool:
    """Return whether it is a number in this range; booleans and NaN are none."""
    kind = type(value)
    if kind is not float and kind is not int and (isinstance(value, bool) or not isinstance(value, (int, float))):
        return False
    return least <= cast(float, value) <= most


def seconds(value: object, least: float, what: str = "duration") -> float:
    """Check a duration. Raises BadArguments if it is no number, too short, or longer than a day."""
    if not is_number(value, least, LONGEST_S):
        raise BadArguments(
            f"a {what} is a number of seconds, here from {least:.3g} to {LONGEST_S:g}, not {value!r:.100}"
        )
    return float(cast(float, value))


def checked(output: Output, value: object, what: str = "value") -> Value:
    """Convert a value for the output. Raises BadArguments."""
    role, name = output.role, output.device.name
    if role is Role.SWITCH and (value is True or value is False):
        return value
    limits = output.device.limits
    if limits is not None:
        if value is None and role in _NONE_TOO:
            return None
        if not is_number(value, limits.least, limits.most):
            raise BadArguments(f"{name} takes a {what} from {limits.least:g} to {limits.most:g}, not {value!r:.100}")
        if output.device.options.get("pwm") is False and value not in (-1, 0, 1):
            raise BadArguments(f"{name} has no pulses (pwm = false): it takes -1, 0 or 1, not {value!r}")
        return float(cast(float, value))
    least = 0.0 if role is Role.COLOUR else -1.0
    numbers: Any = value if isinstance(value, (list, tuple)) and len(value) == channels(role) else [None]
    if role is not Role.SWITCH and all(is_number(number, least, 1.0) for number in numbers):
        return tuple(map(float, numbers))
    raise BadArguments(f"{name} takes {_WANTED[role]}, not {value!r:.100}")


_WANTED = {
    Role.SWITCH: "true or false",
    Role.COLOUR: "three numbers from 0 to 1, red, green and blue",
    Role.DRIVE: "two speeds from -1 to 1, left and right",
}


def angle_of(output: Output, value: object) -> float:
    """Return the angle for a value from -1 to 1. Raises BadArguments."""
    least, most = output.device.angles or (-1.0, 1.0)
    if not is_number(value, -1.0, 1.0):
        raise BadArguments(f"{output.device.name} takes a value from -1 to 1, not {value!r:.100}")
    return least + (cast(float, value) + 1) / 2 * (most - least)


def amount_of(value: Value) -> float:
    """Return the largest amount of a value's numbers; 0 for none."""
    return max((abs(number) for number in numbers_of(value) if not math.isnan(number)), default=0.0)


def numbers_of(value: Value) -> tuple[float, ...]:
    """Return the numbers of a value that has some."""
    if isinstance(value, tuple):
        return value
    return (math.nan if value is None else float(value),)
