"""The `[hardware]` table of the settings file, read into frozen values; errors name the key. Pure.

[hardware.devices.pan]
type = "AngularServo"
pin = 18
min_angle = -90
max_angle = 90
limits = { angle = [-60, 60], speed = 180 }     # degrees, degrees a second
safe = "detach"                                 # or "hold", or a value
lease = 0.5                                     # seconds; false for none, "strict" for 0.25
max_age = 0.2                                   # seconds: an older command is refused
on_fault = "latch"                              # or "resume", after its owner has died
home = 0                                        # where it stands without pulses
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from taskengine import SettingsError

from .board_config import BoardConfig, boards_of, channel_of, names_in, on_board
from .device_types import KINDS, DeviceType, Role
from .groups import GROUPS, Entries, Group
from .options import batch_of, check_motor, nearest, number, options_of, pins_of, switch, wrong
from .plausibility import Plausibility
from .rule_config import OF_INPUTS, STOP_RATE_HZ, contact_rate, plausibility_of, rules_of
from .rules import Rule, RuleAction
from .stop_config import beat_of, enable_of, stop_of
from .wiring import check_pins

LANE = "hardware"
LEASE_S = 0.5
STRICT_S = 0.25
LEASES_S = (0.05, 3600.0)
AGES_S = (0.01, 3600.0)
SOFT_STARTS_S = (0.0, 60.0)
RATE_HZ = 10.0
RATES_HZ = (0.01, 1000.0)
MAX_DEVICES = 64
CHANNELS = 3
"""The most numbers in the value of one output."""
DETACH, HOLD = "detach", "hold"
LATCH, RESUME = "latch", "resume"
EXCLUSIVE_S = 5.0
"""How long, in s, a client may keep others out without renewing."""
EXCLUSIVES_S = (0.1, 3600.0)
WATCHDOG_S = 15.0
"""How long, in s, a hardware watchdog waits for food; a Pi's waits no longer."""
WATCHDOGS_S = (4.0, 3600.0)

Value = bool | float | tuple[float, ...] | None
"""The value of an output, see `Role`."""

SECOND_SELECT = 7
"""The GPIO that selects device 1 of the hardware's SPI bus, as GPIO8 selects device 0."""
_NEW_CODE, _OLD_CODES = 1 << 23, range(0x10, 0x16)
"""Revision codes of boards with 40 pins: codes with this bit, and the last ones of the older codes."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_OF_INPUTS = ("rate", "always", "batch", *OF_INPUTS)
_OF_OUTPUTS = (
    "safe",
    "lease",
    "limits",
    "max_age",
    "untimed",
    "on_fault",
    "home",
    "soft_start",
    "stop",
    "enable",
    "beat",
)
_OURS = ("type", "lane", *_OF_OUTPUTS, *_OF_INPUTS)
_KEYS = ("devices", "boards", "rules", "chip", "board", "rate", "exclusive", "watchdog", "watchdog_timeout")
_TONE_HZ = 440.0
_UNITS = {Role.SERVO: (-1.0, 1.0), Role.LEVEL: (0.0, 1.0), Role.MOTOR: (-1.0, 1.0)}


class DeviceLimits(msgspec.Struct, frozen=True):
    """The range of an output's values, and its speed and acceleration at most, in its unit per second (squared)."""

    least: float
    most: float
    speed: float = math.inf
    acceleration: float = math.inf


class Device(msgspec.Struct, frozen=True):
    """One device: the options for gpiozero, and the rules of the engine.

    `pins` are by parameter, `safe` is "detach", "hold" or a value, `lease` in s or None, `rate` in Hz. An input is read
    at that rate, and published when it has changed, or `always`, or in batches of `batch` samples.

    A command is refused that is older than `max_age` s, None for its lease; or that does not say how old it is and
    came from another machine, unless `untimed`. `on_fault` is "latch" or "resume", after its owner has died. `home` is
    where a servo without pulses stands, None if not known. `soft_start` is how many s an output takes from off to full,
    and `stop_ramp` how many to come to rest, 0 for at once. The input `enable` has to be active for it to run, "" for
    none. A line with a `beat` toggles each so many s while it is on.

    Of an input `plausibility` is what it may say. It `is_required` if the machine is not to be armed without it.
    """

    name: str
    type: str
    lane: str
    place: int
    pins: dict[str, Any]
    options: dict[str, Any]
    safe: Any
    lease: float | None
    limits: DeviceLimits | None
    rate: float
    batch: int = 1
    always: bool = False
    max_age: float | None = None
    untimed: bool = False
    on_fault: str = RESUME
    home: float | None = None
    soft_start: float = 0.0
    stop_ramp: float = 0.0
    enable: str = ""
    beat: float = 0.0
    plausibility: Plausibility | None = None
    is_required: bool = False

    @property
    def kind(self) -> DeviceType:
        """Its type."""
        return KINDS[self.type]

    @property
    def angles(self) -> tuple[float, float] | None:
        """The smallest and the largest angle in degrees; None without angles."""
        if self.type != "AngularServo":
            return None
        return float(self.options.get("min_angle", -90)), float(self.options.get("max_angle", 90))

    def gpios(self) -> Iterator[int]:
        """Yield the device's GPIOs; other devices on its bus may share some of them."""
        for line in self.lines():
            if isinstance(line, int):
                yield line

    def lines(self) -> Iterator[int | str]:
        """Yield the device's GPIOs, and its channels on boards, such as "hat:3"."""
        for pin in {**self.bus_pins, **self.pins}.values():
            yield from pin if isinstance(pin, tuple) else (pin,)

    @property
    def boards(self) -> list[str]:
        """The names of the boards that it is on: none, or one."""
        return names_in(self.pins)

    @property
    def channels(self) -> list[str]:
        """Its channels, such as "hat:3"."""
        return [line for line in self.lines() if isinstance(line, str)]

    @property
    def bus_pins(self) -> dict[str, int]:
        """Its pins on a bus by their parameters, the default ones included."""
        given = {key: self.pins.get(key, pin) for key, pin in self.kind.bus_pins.items()}
        if self.options.get("device"):
            given["select_pin"] = SECOND_SELECT
        return given

    @property
    def has_hardware_bus(self) -> bool:
        """Whether its pins are those of the processor's SPI bus, which the kernel may be told to drive."""
        first = self.kind.bus_pins
        return self.bus_pins in (first, {**first, "select_pin": SECOND_SELECT})


class HardwareConfig(msgspec.Struct, frozen=True):
    """All devices by their names; `chip` is the gpiochip's number or label, `board` a revision, None to detect them.

    `exclusive` is how many s a client may keep others out without renewing. `watchdog` is the path of a hardware
    watchdog, "" for none, which resets the machine `watchdog_timeout` s after it was fed last.
    """

    devices: dict[str, Device]
    chip: int | str | None = None
    board: int | None = None
    exclusive: float = EXCLUSIVE_S
    groups: dict[str, Group] = {}
    watchdog: str = ""
    watchdog_timeout: float = WATCHDOG_S
    rules: tuple[Rule, ...] = ()
    boards: dict[str, BoardConfig] = {}

    @property
    def lanes(self) -> list[str]:
        """The lanes that own pins, each with one worker."""
        return list(dict.fromkeys(device.lane for device in self.devices.values()))

    def of(self, lane: str) -> list[Device]:
        """Return the devices of a lane."""
        return [device for device in self.devices.values() if device.lane == lane]

    def boards_in(self, devices: Iterable[Device]) -> dict[str, BoardConfig]:
        """Return the boards that some of these devices are on."""
        return {name: self.boards[name] for device in devices for name in device.boards}

    @property
    def longest_stop(self) -> float:
        """How long, in s, a stop takes at most until all outputs are at rest."""
        return max(device.stop_ramp for device in self.devices.values())

    def members(self, name: str) -> tuple[str, ...]:
        """Return the names of the devices of a group; another name is one device's."""
        group = self.groups.get(name)
        return (name,) if group is None else group.members

    def rules_of(self, lane: str) -> list[Rule]:
        """Return the rules that the owner of a lane keeps: those over its inputs, or for its outputs."""
        found = []
        for rule in self.rules:
            inputs = [self.devices[source].lane for source in rule.when.sources if source in self.devices]
            outputs = tuple(output for output in rule.outputs if self.devices[output].lane == lane)
            if inputs[:1] == [lane] or (not inputs and (outputs or not rule.outputs)):
                found.append(msgspec.structs.replace(rule, outputs=outputs))
        return found

    def judged(self, lane: str) -> dict[str, Plausibility]:
        """Return what the inputs of a lane may say that are in rules, or required."""
        named = {source for rule in self.rules_of(lane) for source in rule.when.sources}
        return {
            device.name: device.plausibility
            for device in self.of(lane)
            if device.plausibility is not None and (device.is_required or device.name in named)
        }

    def stops_by_input(self, lane: str) -> bool:
        """Return whether an input of a lane can stop the machine."""
        rules = [rule for rule in self.rules_of(lane) if rule.action is RuleAction.LATCH]
        return any(source in self.devices for rule in rules for source in rule.when.sources)


def read(table: Mapping[str, Any]) -> HardwareConfig:
    """Read the table. Raises SettingsError, whose `path` leads to the key."""
    for key in table:
        if key not in _KEYS:
            raise wrong([key], f"no such key; expected {', '.join(_KEYS[:-1])} or {_KEYS[-1]}, not {key!r}")
    rate = number(table.get("rate", RATE_HZ), ["rate"], *RATES_HZ)
    chip = _chip(table.get("chip"))
    entries = table.get("devices", {})
    if not (isinstance(entries, Mapping) and entries):
        raise wrong(["devices"] if "devices" in table else [], "expected a table [hardware.devices.NAME] at least")
    for name in entries:
        if not _NAME.fullmatch(name):
            text = f"a device's name is a letter and up to 63 letters, digits, _ and -, not {name!r}"
            raise wrong(["devices", name], text)
    known = Entries(entries, LANE)
    if len(known.devices) > MAX_DEVICES:
        raise wrong(["devices"], f"expected at most {MAX_DEVICES} devices, not {len(known.devices)}")
    boards = boards_of(table.get("boards", {}))
    try:
        devices = _devices(known.devices, rate, boards)
        check_pins(devices.values(), boards.values())
        rules = rules_of(table.get("rules", {}), known.devices, devices)
    except SettingsError as error:
        raise known.placed(error) from None
    exclusive = number(table.get("exclusive", EXCLUSIVE_S), ["exclusive"], *EXCLUSIVES_S)
    board, watchdog = _board(table.get("board")), _watchdog(table)
    return HardwareConfig(devices, chip, board, exclusive, known.groups, rules=rules, boards=boards, **watchdog)


def _watchdog(table: Mapping[str, Any]) -> dict[str, Any]:
    path = table.get("watchdog", "")
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise wrong(["watchdog"], f'expected the path of a watchdog, such as "/dev/watchdog", not {path!r}')
    timeout = number(table.get("watchdog_timeout", WATCHDOG_S), ["watchdog_timeout"], *WATCHDOGS_S)
    return {"watchdog": path, "watchdog_timeout": timeout}


def _devices(entries: Mapping[str, Any], rate: float, boards: Mapping[str, BoardConfig]) -> dict[str, Device]:
    devices = {name: _device(place, name, entry, rate, boards) for place, (name, entry) in enumerate(entries.items())}
    # what enables an output is read as often as what stops one
    for name in {device.enable for device in devices.values()} & devices.keys():
        entry = {"rate": max(rate, STOP_RATE_HZ), **entries[name]}
        devices[name] = _device(devices[name].place, name, entry, rate, boards)
    return devices


def _chip(chip: object) -> int | str | None:
    if chip is None or (isinstance(chip, str) and re.fullmatch(r"[!-~]{1,31}", chip)):
        return chip
    if isinstance(chip, int) and not isinstance(chip, bool) and chip >= 0:
        return chip
    raise wrong(["chip"], f'expected the label of a gpiochip, such as "pinctrl-rp1", or its number, not {chip!r}')


def _board(board: object) -> int | None:
    if board is None:
        return None
    if isinstance(board, str) and re.fullmatch(r"[0-9a-f]{4,8}", board):
        code = int(board, 16)
        if code & _NEW_CODE or code in _OLD_CODES:
            return code
    raise wrong(["board"], f'expected the revision code of a Pi with 40 pins, such as "a020d3" (3 B+), not {board!r}')


def _device(place: int, name: str, entry: object, rate: float, boards: Mapping[str, BoardConfig]) -> Device:
    path = ["devices", name]
    if not isinstance(entry, Mapping):
        raise wrong(path, f"expected a table, not {entry!r}")
    kind = _kind(entry, path)
    entry, enable = enable_of(entry, kind, path)
    entry = on_board(entry, kind, boards, path)
    parameters = (*kind.pins, *kind.spare, *kind.groups, *kind.options)
    for key in entry:
        if key not in _OURS and key not in parameters:
            raise wrong([*path, key], f"a {kind.name} has no such key; {nearest(key, (*parameters, *_OURS))}")
    pins = pins_of(entry, kind, path, partial(channel_of, boards))
    options = options_of(entry, kind, pins, path)
    check_motor(kind, entry, options, path)
    limits = _limits(entry.get("limits"), kind, options, path)
    lane = entry.get("lane", LANE)
    if not (isinstance(lane, str) and _NAME.fullmatch(lane)):
        raise wrong([*path, "lane"], f"expected the name of a lane, not {lane!r}")
    batch = batch_of(entry, path)
    if batch > 1 and "hold_time" in options:
        raise wrong([*path, "batch"], "an input with a batch publishes no events, such as those of hold_time")
    lease = _lease(entry.get("lease", kind.is_leased), kind, path)
    rate = number(entry.get("rate", contact_rate(entry, rate)), [*path, "rate"], *RATES_HZ)
    return Device(
        name,
        kind.name,
        lane,
        place,
        pins,
        options,
        _safe(entry.get("safe", DETACH), kind, limits, path),
        lease,
        limits,
        rate,
        batch,
        _always(entry.get("always", False), kind, path),
        stop_ramp=stop_of(entry, kind, lease, path),
        enable=enable,
        beat=beat_of(entry, path),
        plausibility=plausibility_of(entry, kind, rate, path),
        is_required=entry.get("required", False) is True,
        **_guards(entry, kind, limits, path),
    )


def _kind(entry: Mapping[str, Any], path: list[str]) -> DeviceType:
    type = entry.get("type")
    if isinstance(type, str) and type in KINDS:
        return KINDS[type]
    if not isinstance(type, str):
        raise wrong(path, f"expected a type, one of {', '.join(KINDS)}")
    raise wrong([*path, "type"], f"{type!r} is no type of device; {nearest(type, (*KINDS, *GROUPS))}")


def _limits(entry: object, kind: DeviceType, options: Mapping[str, Any], path: list[str]) -> DeviceLimits | None:
    if kind.role not in _UNITS:
        if entry is not None:
            raise wrong([*path, "limits"], f"a {kind.name} has no limits")
        # gpiozero's TonalBuzzer plays this many octaves above and below A4
        octaves = 2 ** options.get("octaves", 1)
        return DeviceLimits(_TONE_HZ / octaves, _TONE_HZ * octaves) if kind.role is Role.TONE else None
    has_angles = "min_angle" in kind.options
    unit = "angle" if has_angles else "value"
    least, most = _UNITS[kind.role]
    if has_angles:
        least, most = sorted((options.get("min_angle", -90.0), options.get("max_angle", 90.0)))
        if least == most:
            raise wrong([*path, "max_angle"], "expected another angle than min_angle")
    if entry is None:
        return DeviceLimits(least, most)
    if not isinstance(entry, Mapping) or entry.keys() - {unit, "speed", "acceleration"}:
        raise wrong([*path, "limits"], f"expected {{ {unit} = [least, most], speed = …, acceleration = … }}")
    span = entry.get(unit, [least, most])
    if not (isinstance(span, list) and len(span) == 2):
        raise wrong([*path, "limits", unit], f"expected [least, most], not {span!r}")
    low, high = (number(end, [*path, "limits", unit], least, most) for end in span)
    if low > high:
        raise wrong([*path, "limits", unit], f"expected [least, most], not {span!r}")
    pace = {key: number(entry[key], [*path, "limits", key], 1e-6, 1e9) for key in entry if key != unit}
    if "acceleration" in pace and "speed" not in pace:
        raise wrong([*path, "limits", "acceleration"], "a limit of the acceleration needs one of the speed")
    return DeviceLimits(low, high, **pace)


def _safe(value: object, kind: DeviceType, limits: DeviceLimits | None, path: list[str]) -> Any:
    path = [*path, "safe"]
    if not kind.is_output:
        if value != DETACH:
            raise wrong(path, f"a {kind.name} is read, and has no safe state")
        return DETACH
    if kind.drives and (isinstance(value, bool) or value not in (DETACH, 0, [0] * channels(kind.role))):
        raise wrong(path, f'a {kind.name} is safe when it stands: expected "detach", not {value!r}')
    if value in (DETACH, HOLD):
        return value
    if kind.drives:
        return DETACH
    if kind.role is Role.SWITCH and isinstance(value, bool):
        return value
    if kind.role is Role.COLOUR and isinstance(value, list) and len(value) == channels(kind.role):
        return tuple(number(one, path, 0.0, 1.0) for one in value)
    if limits is not None:
        return number(value, path, limits.least, limits.most)
    raise wrong(path, f'expected "detach", "hold" or a value that a {kind.name} takes, not {value!r}')


def _guards(entry: Mapping[str, Any], kind: DeviceType, limits: DeviceLimits | None, path: list[str]) -> dict[str, Any]:
    """Read the keys that say which commands an output takes, and what follows a fault."""
    allowed = {
        "untimed": kind.is_output,
        "on_fault": kind.is_output,
        "home": kind.role is Role.SERVO,
        "soft_start": kind.role in (Role.LEVEL, Role.MOTOR, Role.DRIVE),
        "stop": kind.role in (Role.LEVEL, Role.MOTOR, Role.DRIVE),
        "beat": kind.role is Role.SWITCH,
    }
    for key, is_allowed in allowed.items():
        if key in entry and not is_allowed:
            raise wrong([*path, key], f"a {kind.name} has no {key}")
    on_fault = entry.get("on_fault", LATCH if kind.drives else RESUME)
    if on_fault not in (LATCH, RESUME):
        raise wrong([*path, "on_fault"], f'expected "{LATCH}" or "{RESUME}", not {on_fault!r}')
    guards: dict[str, Any] = {
        "untimed": switch(entry.get("untimed", False), [*path, "untimed"]),
        "on_fault": on_fault,
    }
    if "max_age" in entry and kind.is_output:
        guards["max_age"] = number(entry["max_age"], [*path, "max_age"], *AGES_S)
    if "home" in entry and limits is not None:
        guards["home"] = number(entry["home"], [*path, "home"], limits.least, limits.most)
    if "soft_start" in entry:
        guards["soft_start"] = number(entry["soft_start"], [*path, "soft_start"], *SOFT_STARTS_S)
    return guards


def _always(value: object, kind: DeviceType, path: list[str]) -> bool:
    if kind.is_output and value is not False:
        raise wrong([*path, "always"], "outputs are published where they have changed")
    always: bool = switch(value, [*path, "always"])
    return always


def _lease(value: object, kind: DeviceType, path: list[str]) -> float | None:
    path = [*path, "lease"]
    if value is False:
        return None
    if not kind.is_output:
        raise wrong(path, f"a {kind.name} is read, and needs no lease")
    if value is True:
        return LEASE_S
    return STRICT_S if value == "strict" else number(value, path, *LEASES_S)


def prefix_of(lane: str) -> str:
    """Return the prefix of the names of a lane's tasks."""
    return "" if lane == LANE else f"{lane}."


def channels(role: Role) -> int:
    """Return how many numbers the value of an output of the role has."""
    return {Role.COLOUR: 3, Role.DRIVE: 2}.get(role, 1)
