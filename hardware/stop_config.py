"""How an output stops, and what has to go on for it to run: `stop`, `enable` and `beat` of a device. Pure.

[hardware.devices.base]
type = "Robot"
left = [22, 23]
right = [24, 25]
stop = "ramp"                                   # or "cut", or { ramp = 0.3 }: seconds
enable = "deadman"                              # an input that has to be held

[hardware.devices.wheel]
type = "Motor"
forward = 5
backward = 6
enable = [13, "deadman"]                        # the pin of its bridge, and the input

[hardware.devices.awake]
type = "DigitalOutput"
pin = 26
lease = 0.5
beat = 0.05                                     # while it is on, the line toggles each so many seconds

A ramp is a stop of category 1 of IEC 60204-1, a cut one of category 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .device_types import DeviceType, Role
from .header import gpio_of
from .options import number, wrong

CUT, RAMP = "cut", "ramp"
ENABLE = "enable"
RAMP_S = 0.2
"""How long, in s, a ramp takes by default, where half of the lease is not shorter."""
RAMPS_S = (0.02, 1.0)
BEATS_S = (0.005, 1.0)


def stop_of(entry: Mapping[str, Any], kind: DeviceType, lease: float | None, path: list[str]) -> float:
    """Read how many s an output takes to come to rest; 0 for at once. Raises SettingsError."""
    stop = entry.get("stop", CUT)
    if stop == CUT:
        return 0.0
    longest = RAMPS_S[1] if lease is None else min(RAMPS_S[1], lease / 2)
    ramp = min(RAMP_S, longest)
    if isinstance(stop, Mapping) and stop.keys() == {RAMP}:
        ramp = number(stop[RAMP], [*path, "stop", RAMP], *RAMPS_S)
    elif stop != RAMP:
        raise wrong([*path, "stop"], f'expected "{CUT}", "{RAMP}" or {{ ramp = seconds }}, not {stop!r}')
    if ramp > longest:
        half = f"half of its lease, {longest:g} s, because it has to end with it"
        raise wrong([*path, "stop", RAMP], f"a ramp takes at most {half}, not {ramp:g}")
    if entry.get("pwm") is False:
        raise wrong([*path, "stop"], f"with pwm = false a {kind.name} is only on or off, and has no ramp")
    if kind.role is Role.LEVEL and entry.get("safe", "detach") not in ("detach", 0):
        raise wrong([*path, "stop"], "a ramp ends at 0, and this one's safe state is another")
    return float(ramp)


def beat_of(entry: Mapping[str, Any], path: list[str]) -> float:
    """Read how many s the line of an output stays at each level while it is on; 0 for a steady one."""
    if "beat" not in entry:
        return 0.0
    if entry.get("safe", "detach") not in ("detach", False):
        raise wrong([*path, "beat"], "a line that beats is safe when it stands still: leave out safe")
    return number(entry["beat"], [*path, "beat"], *BEATS_S)


def enable_of(entry: Mapping[str, Any], kind: DeviceType, path: list[str]) -> tuple[Mapping[str, Any], str]:
    """Read which input enables an output, "" for none; return the other keys too. Raises SettingsError.

    The key is also that of a pin, where a type has such; a list has both.
    """
    given = entry.get(ENABLE)
    values = given if isinstance(given, list) else [given]
    names = [value for value in values if isinstance(value, str) and gpio_of(value) is None and ":" not in value]
    if not names:
        if given is not None and ENABLE not in (*kind.pins, *kind.spare):
            raise wrong([*path, ENABLE], f"expected the name of an input, not {given!r}")
        return entry, ""
    if not kind.is_output:
        raise wrong([*path, ENABLE], f"a {kind.name} is read, and needs nothing that enables it")
    pins = [value for value in values if value not in names]
    if len(names) > 1 or len(pins) > (ENABLE in (*kind.pins, *kind.spare)):
        raise wrong([*path, ENABLE], f"expected one input, and one pin if it has such, not {given!r}")
    others = {key: value for key, value in entry.items() if key != ENABLE}
    return ({**others, ENABLE: pins[0]} if pins else others), names[0]
