"""How an output stops, and what has to go on for it to run: the keys `stop` and `beat` of a device. Pure.

[hardware.devices.base]
type = "Robot"
left = [22, 23]
right = [24, 25]
stop = "ramp"                                   # or "cut", or { ramp = 0.3 }: seconds

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
from .options import number, wrong

CUT, RAMP = "cut", "ramp"
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
