"""Boards that make pulses: the tables `[hardware.boards.NAME]`, and the channels of devices on them. Pure.

[hardware.boards.hat]
type = "PCA9685"
bus = 1                                         # /dev/i2c-1, or a path
address = 0x40
frequency = 50                                  # Hz, of all its channels
oscillator = 25_000_000                         # Hz, as measured
output_enable = 27                              # the GPIO at its pin OE, if any

[hardware.boards.pwm]
type = "PWM"                                    # the kernel's, /sys/class/pwm
chip = "3f20c000.pwm"                           # the name of its device

[hardware.devices.pan]
type = "Servo"
board = "hat"
channel = 3                                     # the same as pin = "hat:3"
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from . import pca9685
from .device_types import DeviceType, Role
from .header import gpio_of
from .options import nearest, number, wrong

PCA9685, PWM = "PCA9685", "PWM"
KERNEL = "pwm"
"""The board that every machine has: the kernel's PWM at the pins of the header."""
FREQUENCIES_HZ = (50.0, 1500.0)
OSCILLATORS_HZ = (20e6, 50e6)
ADDRESSES = (0x40, 0x77)
ALL_CALL = 0x70
"""The address at which every PCA9685 listens when its power comes."""
PWM_CHANNELS = 64
_OF_TWO, _OF_FOUR = ((12, 18), (13, 19)), ((12,), (13,), (18,), (19,))
HEADER = {"3f20c000.pwm": _OF_TWO, "2020c000.pwm": _OF_TWO, "fe20c000.pwm": _OF_TWO, "1f00098000.pwm": _OF_FOUR}
"""The devices with the header's pins, of Pi 2 and 3, Pi 0 and 1, Pi 4, Pi 5 (raspberrypi/linux, arch/*/boot/dts).

With each, at which GPIOs each of its channels may be, one of which an overlay chooses.
"""
BUS_PINS = {"/dev/i2c-0": (0, 1), "/dev/i2c-1": (2, 3)}
"""The GPIOs of a Pi's I2C buses; those of others depend on their overlays."""
_CHIP_ON_I2C = re.compile(r"(\d+)-00([4-7][0-9a-f])")
"""The kernel's name of a PCA9685: its bus and its address."""
_BUS = re.compile(r"/dev/i2c[-/](\d+)")
MAX_BOARDS = 16
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
KEYS = {PCA9685: ("bus", "address", "frequency", "oscillator", "output_enable"), PWM: ("chip",)}
_CHANNEL = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,31}):([0-9]{1,2})")


class BoardConfig(msgspec.Struct, frozen=True):
    """A board: its type, and where it is. `bus` is the path of an I2C bus, `frequency` and `oscillator` are in Hz.

    `chip` is the name of a device of the kernel, "" for the one at the header. `output_enable` is a GPIO.
    """

    name: str
    type: str
    bus: str = ""
    address: int = 0
    frequency: float = 50.0
    oscillator: float = pca9685.OSCILLATOR_HZ
    output_enable: int | None = None
    chip: str = ""

    @property
    def channels(self) -> int:
        """How many channels it has, at most."""
        if self.type == PCA9685 or self.chip_on_i2c:
            return pca9685.CHANNELS
        if not self.chip:
            return max(map(len, HEADER.values()))
        return len(HEADER[self.chip]) if self.chip in HEADER else PWM_CHANNELS

    def gpios_of(self, channel: int) -> tuple[int, ...]:
        """Return the GPIOs of the header at one of which a channel is; none for a channel that is elsewhere."""
        if self.type != PWM or (self.chip and self.chip not in HEADER):
            return ()
        if self.chip:
            return HEADER[self.chip][channel]
        # of whichever Pi this is
        return (_OF_TWO[channel : channel + 1] or _OF_FOUR[channel : channel + 1])[0]

    @property
    def chip_on_i2c(self) -> tuple[str, int] | None:
        """The bus and the address of a PCA9685, also of one that the kernel drives; None for another chip."""
        if self.type == PCA9685:
            return self.bus, self.address
        found = _CHIP_ON_I2C.fullmatch(self.chip)
        return (f"/dev/i2c-{found[1]}", int(found[2], 16)) if found else None

    @property
    def bus_pins(self) -> tuple[int, ...]:
        """The GPIOs of its bus, as far as they are known."""
        return BUS_PINS.get(self.chip_on_i2c[0], ()) if self.chip_on_i2c else ()

    @property
    def period(self) -> float | None:
        """The period in s that all of its channels have; None if each has its own."""
        return pca9685.period(self.frequency, self.oscillator) if self.type == PCA9685 else None

    @property
    def where(self) -> str:
        """Where it is, for people."""
        if self.type == PCA9685:
            return f"{self.address:#04x} on {self.bus}"
        return self.chip or "the kernel's at the header"

    @property
    def is_named(self) -> bool:
        """Whether it is one of the settings."""
        return self.type == PCA9685 or bool(self.chip)


def boards_of(table: object) -> dict[str, BoardConfig]:
    """Read the boards, and add the kernel's. Raises SettingsError."""
    if not isinstance(table, Mapping) or len(table) > MAX_BOARDS:
        raise wrong(["boards"], f"expected at most {MAX_BOARDS} tables [hardware.boards.NAME]")
    boards = {name: _board(name, entry) for name, entry in table.items()}
    places: dict[object, str] = {}
    for board in boards.values():
        other = places.setdefault(board.chip_on_i2c or board.chip, board.name)
        if other != board.name:
            raise wrong(["boards", board.name], f"{board.where} is {other}'s already")
    enables: dict[int | None, str] = {}
    for board in boards.values():
        other = enables.setdefault(board.output_enable, board.name)
        if board.output_enable is not None and other != board.name:
            told = f"GPIO{board.output_enable} is the output_enable of {other}: each board needs a line of its own"
            raise wrong(["boards", board.name, "output_enable"], told)
    return {KERNEL: BoardConfig(KERNEL, PWM), **boards}


def _board(name: str, entry: object) -> BoardConfig:
    path = ["boards", name]
    if not _NAME.fullmatch(name) or name == "J8":
        raise wrong(path, f"a board's name is a letter and up to 31 letters, digits, _ and -, not {name!r}")
    if not isinstance(entry, Mapping):
        raise wrong(path, f"expected a table, not {entry!r}")
    type = entry.get("type")
    if not isinstance(type, str) or type not in KEYS:
        raise wrong([*path, "type"] if "type" in entry else path, f'expected type = "{PCA9685}" or "{PWM}"')
    for key in entry:
        if key not in ("type", *KEYS[type]):
            raise wrong([*path, key], f"a {type} has no such key; {nearest(key, ('type', *KEYS[type]))}")
    return _pca9685(name, entry, path) if type == PCA9685 else BoardConfig(name, PWM, chip=_chip(entry, path))


def _chip(entry: Mapping[str, Any], path: list[str]) -> str:
    chip = entry.get("chip")
    if not (isinstance(chip, str) and re.fullmatch(r"[\w.:-]{1,64}", chip)) or re.fullmatch(r"(pwmchip)?\d+", chip):
        key = [*path, "chip"] if "chip" in entry else path
        told = 'the name of its device, such as chip = "3f20c000.pwm", because numbers change'
        raise wrong(key, f"expected {told}, not {chip!r}")
    return chip


def _pca9685(name: str, entry: Mapping[str, Any], path: list[str]) -> BoardConfig:
    bus = entry.get("bus", 1)
    if isinstance(bus, int) and not isinstance(bus, bool) and bus >= 0:
        bus = f"/dev/i2c-{bus}"
    if not (isinstance(bus, str) and bus.startswith("/dev/")):
        raise wrong([*path, "bus"], f'expected the number of an I2C bus, or a path such as "/dev/i2c-1", not {bus!r}')
    bus = posixpath.normpath(bus)
    if (numbered := _BUS.fullmatch(bus)) and bus != (usual := f"/dev/i2c-{int(numbered[1])}"):
        raise wrong([*path, "bus"], f'expected "{usual}", the name that everybody else has for {bus}')
    address = entry.get("address", 0x40)
    whole = number(address, [*path, "address"], *ADDRESSES)
    if not isinstance(address, int) or whole == ALL_CALL:
        told = f"a whole number from {ADDRESSES[0]:#x} to {ADDRESSES[1]:#x}"
        raise wrong([*path, "address"], f"expected {told}, but not {ALL_CALL:#x}, which every board hears")
    frequency = number(entry.get("frequency", 50), [*path, "frequency"], *FREQUENCIES_HZ)
    oscillator = number(entry.get("oscillator", pca9685.OSCILLATOR_HZ), [*path, "oscillator"], *OSCILLATORS_HZ)
    least, most = pca9685.frequencies(oscillator)
    if not least <= frequency <= most:
        told = f"with this oscillator the chip makes {least:.3g} to {most:.4g} Hz, not {frequency:g} Hz"
        raise wrong([*path, "frequency"], told)
    enable = entry.get("output_enable")
    gpio = gpio_of(enable)
    if enable is not None and gpio is None:
        raise wrong([*path, "output_enable"], f"expected a GPIO, 0 to 27, not {enable!r}")
    if gpio in BUS_PINS.get(bus, ()):
        raise wrong([*path, "output_enable"], f"GPIO{gpio} is a line of the board's own bus, {bus}")
    return BoardConfig(name, PCA9685, bus, int(address), frequency, oscillator, gpio)


def channel_of(boards: Mapping[str, BoardConfig], value: object, path: list[str]) -> str | None:
    """Return a pin that is a channel, "hat:3"; None for another pin. Raises SettingsError for one that is not there."""
    found = _CHANNEL.fullmatch(value) if isinstance(value, str) and gpio_of(value) is None else None
    if found is None:
        return None
    board = boards.get(found[1])
    if board is None:
        raise wrong(path, f"no board is named {found[1]!r}; {nearest(found[1], boards)}")
    if int(found[2]) >= board.channels:
        raise wrong(path, f"{board.name} has the channels 0 to {board.channels - 1}, not {int(found[2])}")
    return f"{board.name}:{int(found[2])}"


def split(channel: str) -> tuple[str, int]:
    """Return the name of the board and the number of a channel."""
    name, _, number = channel.partition(":")
    return name, int(number)


def names_in(pins: Mapping[str, Any]) -> list[str]:
    """Return the names of the boards that a device with these pins is on."""
    flat = [pin for value in pins.values() for pin in (value if isinstance(value, tuple) else (value,))]
    return list(dict.fromkeys(split(pin)[0] for pin in flat if isinstance(pin, str)))


def on_board(
    entry: Mapping[str, Any], kind: DeviceType, boards: Mapping[str, BoardConfig], path: list[str]
) -> Mapping[str, Any]:
    """Return a device's entry with channels for its pins, if it names a board. Raises SettingsError."""
    parts = (*kind.pins, *kind.spare, *kind.groups)
    if "board" in entry:
        entry = _with_channels(entry, kind, parts, boards, path)
    given = {key: tuple(_flat(entry[key])) for key in parts if entry.get(key) is not None}
    used = names_in({key: tuple(pin for pin in pins if _is_channel(pin, boards)) for key, pins in given.items()})
    if used and not kind.is_output:
        raise wrong(path, f"a {kind.name} is read, and a board has outputs only")
    if used:
        _check_whole([pin for pins in given.values() for pin in pins], used, boards, path)
        if entry.get("active_high") is False:
            told = "off, and disabled, a channel of a board is low: wire the device so that high is on"
            raise wrong([*path, "active_high"], told)
        if "beat" in entry:
            raise wrong([*path, "beat"], "a line beats on a pin of its own: a board's bus may be late")
    for board in (boards[name] for name in used):
        if board.period is not None:
            entry = _at_period(entry, kind, board, board.period, path)
    return entry


def _check_whole(pins: list[Any], used: list[str], boards: Mapping[str, BoardConfig], path: list[str]) -> None:
    """Refuse a device with pins in two places, one of which may be dead while the other goes on."""
    if len(used) > 1:
        raise wrong(path, f"all of its pins have to be on one board, not on {' and '.join(used)}")
    if not all(_is_channel(pin, boards) for pin in pins):
        raise wrong(path, f"all of its pins have to be channels of {used[0]}, or none of them")


def _with_channels(
    entry: Mapping[str, Any],
    kind: DeviceType,
    parts: Collection[str],
    boards: Mapping[str, BoardConfig],
    path: list[str],
) -> dict[str, Any]:
    name = entry["board"]
    if not isinstance(name, str) or name not in boards:
        raise wrong([*path, "board"], f"no board is named {name!r}; {nearest(str(name), boards)}")
    found = {key: value for key, value in entry.items() if key not in ("board", "channel")}
    if "channel" in entry:
        if "pin" not in parts:
            raise wrong([*path, "channel"], f"a {kind.name} has several: give the channels of {', '.join(parts)}")
        if "pin" in entry:
            raise wrong([*path, "channel"], "pin is given too: one of them says where the device is")
        found["pin"] = entry["channel"]
    elif "pin" in parts and "pin" not in entry:
        raise wrong(path, f"a {kind.name} on the board {name} needs channel")
    for key in parts:
        if key in found:
            place = "channel" if key == "pin" and "channel" in entry else key
            value = found[key]
            channels = [_numbered(one, name, boards, [*path, place]) for one in _flat(value)]
            found[key] = channels if isinstance(value, list) else channels[0]
    return found


def _numbered(value: object, name: str, boards: Mapping[str, BoardConfig], path: list[str]) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    channel = channel_of(boards, f"{name}:{value}" if whole else value, path)
    if channel is None or split(channel)[0] != name:
        raise wrong(path, f"expected the number of a channel of {name}, not {value!r}")
    return channel


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_channel(value: object, boards: Mapping[str, BoardConfig]) -> bool:
    return isinstance(value, str) and ":" in value and value.partition(":")[0] in boards


def _at_period(
    entry: Mapping[str, Any], kind: DeviceType, board: BoardConfig, period: float, path: list[str]
) -> Mapping[str, Any]:
    """Return a device's entry with the period of its board."""
    if kind.role is Role.TONE:
        raise wrong(path, f"a {kind.name} needs a frequency of its own, and {board.name} has one for all channels")
    for key in ("frame_width", "frequency"):
        if key in entry and key in kind.options:
            raise wrong([*path, key], f"{board.name} has one frequency for all channels: {board.frequency:g} Hz")
    if kind.role is not Role.SERVO:
        return entry
    longest = entry.get("max_pulse_width", kind.options["max_pulse_width"].default)
    if isinstance(longest, (int, float)) and longest >= period:
        told = f"a pulse of {1000 * longest:g} ms does not fit into {board.name}'s period of {1000 * period:.3g} ms"
        raise wrong(path, told)
    return {**entry, "frame_width": period}
