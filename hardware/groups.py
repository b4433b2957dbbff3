"""Groups of lights, as gpiozero's LEDBoard and TrafficLights: each light is a device of its own. Pure.

[hardware.devices.lights]
type = "TrafficLights"                          # the devices lights.red, lights.amber and lights.green
red = 5
amber = 6
green = 13

[hardware.devices.bar]
type = "LEDBoard"
pins = [16, 20, 21]                             # bar.0, bar.1 and bar.2; or { left = 16, right = 20 }
pwm = true                                      # PWMLEDs; every other key is that of each light
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from taskengine import SettingsError

from .options import switch, wrong

BOARD, TRAFFIC = "LEDBoard", "TrafficLights"
GROUPS = (BOARD, TRAFFIC)
"""The types of groups."""
_COLOURS = {"red": ("red",), "amber": ("amber", "yellow"), "green": ("green",)}
"""The lights of TrafficLights, and their parameters in gpiozero."""
_PART = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Group(msgspec.Struct, frozen=True):
    """A group: its type and lane, and the names of its devices, in order."""

    name: str
    type: str
    lane: str
    members: tuple[str, ...]


class Entries:
    """The entries of all devices; each group is replaced by its devices. Raises SettingsError."""

    def __init__(self, entries: Mapping[str, Any], lane: str) -> None:
        self.devices: dict[str, Any] = {}
        self.groups: dict[str, Group] = {}
        self._keys: dict[str, list[str]] = {}
        """The path to the pin of each device of a group."""
        for name, entry in entries.items():
            type = entry.get("type") if isinstance(entry, Mapping) else None
            if type not in GROUPS:
                self.devices[name] = entry
                continue
            members = self._expand(name, entry)
            self.groups[name] = Group(name, type, entry.get("lane", lane), members)

    def placed(self, error: SettingsError) -> SettingsError:
        """Return an error of a group's device as one of the group, whose key is in the file."""
        member = error.path[2] if len(error.path) > 2 else ""
        if member not in self._keys:
            return error
        key = error.path[-1]
        group = self._keys[member][:3]
        path = self._keys[member] if key in ("pin", member, "type") else [*group, key]
        return SettingsError(str(error), path=path)

    def _expand(self, name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
        path = ["devices", name]
        is_pwm = switch(entry.get("pwm", False), [*path, "pwm"])
        own = [key for keys in _COLOURS.values() for key in keys] if entry["type"] == TRAFFIC else ["pins"]
        shared = {key: value for key, value in entry.items() if key not in (*own, "type", "pwm")}
        members = []
        for part, key, pin in _parts(entry, path):
            member = f"{name}.{part}"
            self.devices[member] = {"type": "PWMLED" if is_pwm else "LED", **shared, "pin": pin}
            self._keys[member] = ["hardware", *path, *key]
            members.append(member)
        return tuple(members)


def _parts(entry: Mapping[str, Any], path: list[str]) -> Iterator[tuple[str, list[str], Any]]:
    """Yield the lights of a group: the name, the keys that lead to the pin, and the pin."""
    if entry["type"] == TRAFFIC:
        for part, keys in _COLOURS.items():
            given = [key for key in keys if key in entry]
            if len(given) != 1:
                raise wrong(path, f"{TRAFFIC} need {' or '.join(keys)}, once")
            yield part, given, entry[given[0]]
        return
    pins = entry.get("pins")
    named: Any = dict(enumerate(pins)) if isinstance(pins, list) else pins
    if not (isinstance(named, Mapping) and named):
        raise wrong([*path, "pins"] if "pins" in entry else path, f"an {BOARD} needs pins: [16, 20] or {{ left = 16 }}")
    for part, pin in named.items():
        if not _PART.fullmatch(str(part)):
            raise wrong([*path, "pins", part], f"a light's name is up to 32 letters, digits, _ and -, not {part!r}")
        yield str(part), ["pins"] if isinstance(pins, list) else ["pins", part], pin
