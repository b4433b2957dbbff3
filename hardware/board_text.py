"""Tells people which boards there are, and which device has which channel. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .board_config import PCA9685, BoardConfig, split
from .device_config import HardwareConfig


def told(layout: HardwareConfig) -> list[BoardConfig]:
    """Return the boards of the settings, and the kernel's if a device is on it."""
    used = {name for device in layout.devices.values() for name in device.boards}
    return [board for board in layout.boards.values() if board.is_named or board.name in used]


def users(layout: HardwareConfig) -> dict[str, str]:
    """Return the device of each channel, such as "hat:3", in order."""
    found = {
        str(line): f"{device.name} ({device.type}, lane {device.lane})"
        for device in layout.devices.values()
        for line in device.lines()
        if isinstance(line, str)
    }
    return {channel: found[channel] for channel in sorted(found, key=split)}


def headings(layout: HardwareConfig, *, emulated: bool) -> Iterator[tuple[str, str]]:
    """Yield the name of each board, and a line about it."""
    for board in told(layout):
        pace = f", {board.frequency:g} Hz" if board.type == PCA9685 else ""
        enable = "" if board.output_enable is None else f", output_enable GPIO{board.output_enable}"
        where = f"{board.where}{pace}{enable}"
        yield board.name, f"board {board.name}: {board.type}, {where}{'; emulated, in memory' if emulated else ''}"


def lines(layout: HardwareConfig, *, emulated: bool) -> Iterator[str]:
    """Yield each board, and below it its channels with their devices."""
    channels = users(layout)
    for name, heading in headings(layout, emulated=emulated):
        yield heading
        for channel, user in channels.items():
            if split(channel)[0] == name:
                yield f"  {channel:<8}{user}"
