"""Finds the users of a gpiochip's lines, as far as the kernel tells: labels of lines, and processes with it open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from taskengine import SettingsError

from .device_config import HardwareConfig
from .header import GPIOS


def users(layout: HardwareConfig, pins: str) -> dict[int, str]:
    """Return the users of the lines, by GPIO; none without a gpiochip, or with another backend than lgpio."""
    from .backends import AUTO, BACKENDS, chosen

    try:
        if chosen(pins) not in (AUTO, "lgpio"):
            return {}
        factory = BACKENDS[pins](layout)
    except SettingsError:
        return {}
    try:
        return dict(_used(factory))
    except Exception:  # lgpio's own: this chip has other lines than a Pi's
        return {}
    finally:
        factory.close()


def _used(factory: object) -> Iterator[tuple[int, str]]:
    import lgpio

    for number in sorted(GPIOS):
        _, _, flags, _, user = lgpio.gpio_get_line_info(factory._handle, number)  # type: ignore[attr-defined]
        if flags & 1:
            yield number, user or "the kernel"


def holders() -> str:
    """Return other processes that have a gpiochip's lines, as text: "python [812]"; "" if none is visible."""
    return _holders(_is_line)


def holders_of(path: str) -> str:
    """Return other processes that have a file open, as text; "" if none is visible."""
    return _holders(path.__eq__)


def _holders(is_it: Callable[[str], bool]) -> str:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            if any(is_it(os.readlink(fd)) for fd in (folder / "fd").iterdir()):
                found.append(f"{(folder / 'comm').read_text().strip()} [{folder.name}]")
        except OSError:  # it ended, or is another user's
            continue
    return ", ".join(found)


def _is_line(target: str) -> bool:
    return target.startswith("/dev/gpiochip") or "gpio-line" in target
