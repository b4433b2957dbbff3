"""The 40-pin header of a Raspberry Pi (model B+ and later), with the users of its pins. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

# https://datasheets.raspberrypi.com: physical pins 1 to 40, odd ones left; numbers are GPIOs as the processor counts
HEADER: tuple[int | str, ...] = (
    *("3V3", "5V", 2, "5V", 3, "GND", 4, 14, "GND", 15),
    *(17, 18, 27, "GND", 22, 23, "3V3", 24, 10, "GND"),
    *(9, 25, 11, 8, "GND", 7, 0, 1, 5, "GND"),
    *(6, 12, 13, "GND", 19, 16, 26, 20, "GND", 21),
)
GPIOS = frozenset(name for name in HEADER if isinstance(name, int))
PULLED_UP = frozenset((2, 3))
"""GPIOs with a resistor to 3V3 on the board, because they are an I2C bus too: nothing pulls them down."""


def gpio_of(pin: object) -> int | None:
    """Return the GPIO of a pin's name: 18, "GPIO18", or "BOARD12" for its place on the header.

    None if it is no GPIO.
    """
    if isinstance(pin, bool):
        return None
    if isinstance(pin, int):
        return pin if pin in GPIOS else None
    found = re.fullmatch(r"(?:GPIO|BCM)([0-9]{1,2})|(?:BOARD|J8:)([0-9]{1,2})", pin) if isinstance(pin, str) else None
    if found is None:
        return None
    if found[1]:
        return gpio_of(int(found[1]))
    place = int(found[2])
    return gpio_of(HEADER[place - 1]) if 1 <= place <= len(HEADER) else None


def line_name(line: int | str) -> str:
    """Return the name of a GPIO, or of a channel."""
    return f"GPIO{line}" if isinstance(line, int) else line


def rows(owners: Mapping[int, str]) -> list[tuple[str, str, str, str, str, str]]:
    """Return a row for each two pins: owner, name, place, place, name, owner; `owners` are by GPIO."""

    def cells(place: int) -> tuple[str, str, str]:
        name = HEADER[place - 1]
        if isinstance(name, str):
            return "", name, str(place)
        return owners.get(name, ""), f"GPIO{name}", str(place)

    return [(*cells(place), *cells(place + 1)[::-1]) for place in range(1, len(HEADER), 2)]


def lines(owners: Mapping[int, str]) -> Iterator[str]:
    """Yield the header as text, with the corner of the board at the top right."""
    table = rows(owners)
    widths = [max(len(row[column]) for row in table) for column in range(6)]
    for row in table:
        left = (f"{row[column]:>{widths[column]}}" for column in range(3))
        right = (f"{row[column]:<{widths[column]}}" for column in range(3, 6))
        yield f"{'  '.join(left)} | {'  '.join(right)}".rstrip()
