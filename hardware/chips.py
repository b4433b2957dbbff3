"""Finds the gpiochip with the pins of the 40-pin header by its label; its number changes with the kernel.

On a Pi 5 it has been 4, and is 0 since Linux 6.6.47, which keeps /dev/gpiochip4 as a link (gpiozero#1184, #1205).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from taskengine import SettingsError

HEADER_LABELS = ("pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1")
"""The labels on a Pi 0 to 3, 4 and 5, from the kernel's drivers: pinctrl-bcm2835.c and pinctrl-rp1.c."""


class ChipInfo(NamedTuple):
    """A gpiochip as the kernel describes it: its own name, such as "gpiochip0", and its driver's label."""

    name: str
    label: str


@lru_cache
def find_chip(wanted: int | str | None, folder: Path = Path("/dev")) -> int:
    """Return the number of the gpiochip that `[hardware]` wants: a number, a label, or None for the header's.

    Opening them all takes long, so that this is done once: the guardian has no time for it. Raises SettingsError if
    there is no such chip, or if it cannot be told which one it is.
    """
    if isinstance(wanted, int):
        return wanted
    return chosen_chip(wanted, _chips(folder))


def chosen_chip(label: str | None, chips: Mapping[int, ChipInfo]) -> int:
    """Return the number of the chip with that label; None for the header's, or else the only one that there is.

    `chips` are those that can be opened, by the numbers of their devices; a device may be a link to another. Raises
    SettingsError.
    """
    numbers: dict[ChipInfo, int] = {}
    for number, chip in sorted(chips.items()):
        numbers.setdefault(chip, number)
    told = ", ".join(f'{chip.name} "{chip.label}"' for chip in numbers) or "none that can be opened"
    wanted = HEADER_LABELS if label is None else (label,)
    found = [number for chip, number in numbers.items() if chip.label in wanted]
    if not found and label is None and len(numbers) == 1:
        found = list(numbers.values())
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingsError(f"pins: several gpiochips have the label that is wanted; there are {told}: name a number")
    if label is None:
        raise SettingsError(
            f"pins: no gpiochip has the label of a Pi's header ({', '.join(HEADER_LABELS)}); there are {told}. Is the "
            'user in the group gpio? On another board, `chip = "LABEL"` in [hardware] names one, and `board` a Pi'
        )
    raise SettingsError(f"pins: no gpiochip has the label {label!r}; there are {told}. Is the user in the group gpio?")


def _chips(folder: Path) -> dict[int, ChipInfo]:
    """Return the chips that can be opened."""
    import lgpio

    chips = {}
    for path in folder.glob("gpiochip*"):
        if not re.fullmatch(r"gpiochip\d+", path.name):
            continue
        number = int(path.name.removeprefix("gpiochip"))
        try:
            handle = lgpio.gpiochip_open(number)
        except lgpio.error:  # it is another group's
            continue
        try:
            _, _, name, label = lgpio.gpio_get_chip_info(handle)
        finally:
            lgpio.gpiochip_close(handle)
        chips[number] = ChipInfo(name, label)
    return chips
