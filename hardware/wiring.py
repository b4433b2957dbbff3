"""Checks that each pin has one user, and each board one lane. Errors name the key. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

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
    enables = {board.output_enable: board.name for board in boards if board.output_enable is not None}
    lanes: dict[str, Device] = {}
    for device in devices:
        roles: dict[int | str, str] = {gpio: key for key, gpio in device.bus_pins.items()}
        for line in dict.fromkeys(device.lines()):
            if isinstance(line, int) and line in enables:
                raise wrong(["devices", device.name], f"{line_name(line)} is the output_enable of {enables[line]}")
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
