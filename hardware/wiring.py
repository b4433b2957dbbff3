"""Checks that each pin has one user, and each board one lane. Errors name the key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from . import pca9685
from .board_config import HEADER, KERNEL, PCA9685, split
from .device_types import Role
from .header import line_name
from .options import wrong

if TYPE_CHECKING:
    from .board_config import BoardConfig
    from .device_config import Device


def check_pins(devices: Iterable[Device], boards: Iterable[BoardConfig]) -> None:
    """Refuse a pin that two devices use, unless it is the same pin of one bus, and a board of two lanes.

    Raises SettingsError.
    """
    users: dict[int | str, tuple[Device, str]] = {}
    devices, boards = list(devices), list(boards)
    enables = {board.output_enable: board.name for board in boards if board.output_enable is not None}
    bus_pins = {pin: board.name for board in boards for pin in board.bus_pins}
    lanes: dict[str, Device] = {}
    for device in devices:
        roles: dict[int | str, str] = {gpio: key for key, gpio in device.bus_pins.items()}
        for line in dict.fromkeys(device.lines()):
            if isinstance(line, int) and line in enables:
                raise wrong(["devices", device.name], f"{line_name(line)} is the output_enable of {enables[line]}")
            if isinstance(line, int) and line in bus_pins:
                raise wrong(["devices", device.name], f"{line_name(line)} is a line of the bus of {bus_pins[line]}")
            other, role = users.setdefault(line, (device, roles.get(line, "")))
            if other is device:
                continue
            if not role or role != roles.get(line):
                raise wrong(["devices", device.name], f"{line_name(line)} is {other.name}'s already")
            _check_bus(device, other)
        if len(set(device.lines())) < len(list(device.lines())):
            raise wrong(["devices", device.name], "two of its pins are the same")
        for board in device.boards:
            other = lanes.setdefault(board, device)
            if other.lane != device.lane:
                told = f"it shares the board {board} with {other.name}, which is lane {other.lane}'s"
                raise wrong(["devices", device.name, "lane"], told)
    _check_header(devices, {board.name: board for board in boards}, users.keys() | enables.keys())
    for one in boards:
        _check_board(one, [device for device in devices if one.name in device.boards], lanes)


def _check_header(devices: list[Device], boards: Mapping[str, BoardConfig], used: AbstractSet[int | str]) -> None:
    """Refuse a channel of the header's chip if every GPIO at which it may be is something else's."""
    for device in devices:
        for channel in device.channels:
            name, number = split(channel)
            gpios = boards[name].gpios_of(number)
            if gpios and used >= {*gpios}:
                told = " or ".join(map(line_name, gpios))
                raise wrong(["devices", device.name], f"{channel} is at {told}, which others have")


def _check_board(board: BoardConfig, devices: list[Device], used: Iterable[str]) -> None:
    """Refuse the header's chip under two names, and different frequencies on a chip that has one for all channels."""
    if board.chip in HEADER and devices and KERNEL in used:
        raise wrong(["boards", board.name, "chip"], f"{board.chip} is the board {KERNEL} already, which others use")
    if board.type == PCA9685 or not board.chip_on_i2c:
        return
    least, most = pca9685.frequencies()
    first: tuple[Device, float] | None = None
    for device in devices:
        path, hertz = ["devices", device.name], _frequency(device)
        if hertz is None:
            raise wrong(
                path, f"a {device.type} needs a frequency of its own, and {board.name} has one for all channels"
            )
        if not least <= hertz <= most:
            raise wrong(path, f"{board.name} makes {least:.3g} to {most:.4g} Hz, not {hertz:g} Hz")
        first = first or (device, hertz)
        if abs(hertz - first[1]) > first[1] / 1000:
            told = f"{board.name} has one frequency for all channels: {first[0].name} has {first[1]:g} Hz"
            raise wrong(path, f"{told}, and this one {hertz:g} Hz; set frequency, or frame_width")


def _frequency(device: Device) -> float | None:
    """Return the frequency in Hz of the pulses of an output; None if it changes."""
    if device.kind.role is Role.TONE:
        return None
    if device.kind.role is Role.SERVO:
        return 1 / float(device.options.get("frame_width", device.kind.options["frame_width"].default))
    # kernel_pwm.py's, and gpiozero's
    return 50.0 if device.kind.role is Role.SWITCH else float(device.options.get("frequency", 100))


def _check_bus(device: Device, other: Device) -> None:
    """Refuse two chips that share a pin of a bus although they cannot."""
    ours, theirs = device.bus_pins, other.bus_pins
    path = ["devices", device.name]
    for key in ours.keys() - {"select_pin"}:
        if ours[key] != theirs[key]:
            raise wrong([*path, key], f"it shares {other.name}'s bus, whose {key} is GPIO{theirs[key]}")
    if device.has_hardware_bus != other.has_hardware_bus:
        raise wrong(path, f"GPIO7 or GPIO8 selects only one of it and {other.name}: one bus is all of them, or none")
    if not device.has_hardware_bus and device.lane != other.lane:
        raise wrong([*path, "lane"], f"it shares {other.name}'s bus, which is lane {other.lane}'s")
