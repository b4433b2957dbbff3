"""Checks the options and the pins of a device by the table of its type. Errors name the key. Pure."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from taskengine import SettingsError

from .device_types import DeviceType, Option, Role
from .header import PULLED_UP, gpio_of

_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def wrong(path: Iterable[str], text: str) -> SettingsError:
    """Return the error for the key that `path` leads to, below [hardware]."""
    path = ["hardware", *path]
    return SettingsError(f"{'.'.join(path)}: {text}", path=path)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that `name` is most like, without regard to case; all of them if none is alike."""
    by_spelling = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), by_spelling, n=1)
    return f"the nearest is {by_spelling[close[0]]}" if close else f"expected one of {', '.join(by_spelling.values())}"


def number(value: object, path: list[str], least: float, most: float) -> float:
    """Check a number's range. Raises SettingsError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise wrong(path, f"expected a number from {least:g} to {most:g}, not {value!r}")
    return float(value)


def switch(value: object, path: list[str]) -> bool:
    """Check a boolean. Raises SettingsError."""
    if not isinstance(value, bool):
        raise wrong(path, f"expected true or false, not {value!r}")
    return value


def pins_of(
    entry: Mapping[str, Any], kind: DeviceType, path: list[str], channel: Callable[[object, list[str]], str | None]
) -> dict[str, Any]:
    """Read the pins of a device, by parameter, as GPIOs; a tuple of them for a group. Raises SettingsError.

    `channel` returns a pin that is a channel of a board, None for another one.
    """
    for key in (*kind.pins, *kind.groups):
        if key not in entry:
            raise wrong(path, f"a {kind.name} needs {key}")
    keys = (*kind.pins, *kind.spare, *kind.groups)
    return {key: _pins(entry[key], kind, key, path, channel) for key in keys if key in entry}


def _pins(
    value: object, kind: DeviceType, key: str, path: list[str], channel: Callable[[object, list[str]], str | None]
) -> Any:
    if key not in kind.groups:
        return _pin(value, [*path, key], channel)
    if not isinstance(value, list) or not 2 <= len(value) <= 3:
        raise wrong([*path, key], f"expected the pins of a motor, [forward, backward], not {value!r}")
    return tuple(_pin(pin, [*path, key], channel) for pin in value)


def _pin(value: object, path: list[str], channel: Callable[[object, list[str]], str | None]) -> int | str:
    if (found := channel(value, path)) is not None:
        return found
    gpio: int | None = gpio_of(value)
    if gpio is None:
        raise wrong(path, f'there is no pin {value!r}; expected a GPIO, 0 to 27, or a place such as "BOARD12"')
    return gpio


def options_of(entry: Mapping[str, Any], kind: DeviceType, pins: Mapping[str, Any], path: list[str]) -> dict[str, Any]:
    """Read the options for gpiozero. Raises SettingsError.

    Each is in its range, and they fit together and to the `pins` of the device.
    """
    given = {key: _option(entry[key], kind.options[key], [*path, key]) for key in kind.options if key in entry}
    options = {**kind.defaults, **given}
    for row in kind.rising:
        values = [given.get(name, kind.options[name].default) for name in row]
        if any(one >= other for one, other in itertools.pairwise(values)):
            told = " < ".join(f"{name} ({value:g})" for name, value in zip(row, values, strict=True))
            raise wrong([*path, next((name for name in row if name in given), row[0])], f"expected {told}")
    for first, *others in kind.excluding:
        for other in others:
            if first in given and (other in given or other in pins):
                raise wrong([*path, first], f"{first} and {other} cannot both be given")
    for name, needed in kind.needing:
        if given.get(name) and not options.get(needed):
            raise wrong([*path, name], f"{name} needs {needed}")
    _check_pulls(kind, options, pins, path)
    return options


def _option(value: object, option: Option, path: list[str]) -> Any:
    type = option.type
    is_number = type in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool)
    if not ((is_number and _as(type, value) == value) or (isinstance(value, type) and type not in (int, float))):
        raise wrong(path, f"expected {_TYPES[type]}, not {value!r}")
    if option.choices and value not in option.choices:
        raise wrong(path, f"expected one of {', '.join(map(str, option.choices))}, not {value!r}")
    if is_number and not option.least <= _as(float, value) <= option.most:
        raise wrong(path, f"expected {_TYPES[type]} from {span(option)}, not {value!r}")
    return type(value)


def _as(type: Any, value: Any) -> Any:
    """Return the number as an int or a float; None if that is impossible, such as for an infinite one as an int."""
    try:
        return type(value)
    except (OverflowError, ValueError):
        return None


def span(option: Option) -> str:
    """Describe the range of an option."""
    if option.choices:
        return ", ".join(map(str, option.choices))
    return f"{option.least:g} to {option.most:g}" if option.least > -float("inf") else ""


def _check_pulls(kind: DeviceType, options: Mapping[str, Any], pins: Mapping[str, Any], path: list[str]) -> None:
    """Refuse another pull than up if the board has a resistor that pulls up."""
    for name, is_up in kind.pulls.items():
        pull = None if "active_state" in options else options.get("pull_up", is_up)
        if pins.get(name) in PULLED_UP and not pull:
            key = next((key for key in ("pull_up", "active_state") if key in options), name)
            cure = "expected pull_up = true" if "pull_up" in kind.options else "expected another pin"
            raise wrong([*path, key], f"GPIO{pins[name]} has a resistor on the board that pulls it up: {cure}")


def batch_of(entry: Mapping[str, Any], path: list[str]) -> int:
    """Read how many readings are published at once. Raises SettingsError, also if numpy is missing."""
    batch = int(number(entry.get("batch", 1), [*path, "batch"], 1, 10000))
    if batch > 1 and not _has_numpy():
        raise wrong([*path, "batch"], "an input with a batch needs numpy: pip install numpy")
    return batch


def _has_numpy() -> bool:
    try:
        import numpy
    except ImportError:
        return False
    return hasattr(numpy, "array")


def check_motor(kind: DeviceType, entry: Mapping[str, Any], options: Mapping[str, Any], path: list[str]) -> None:
    """Refuse options for intermediate speeds of a motor that is only on or off."""
    if kind.role is Role.MOTOR and options.get("pwm") is False:
        for key in ("limits", "soft_start"):
            if key in entry:
                raise wrong([*path, key], f"with pwm = false a {kind.name} is only on or off, and has no {key}")
