"""Asks a Pi's firmware about its supply and its clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from taskengine.runtime.system_programs import output_of

THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
UNDERVOLTAGE = 0
"""The bit of the supply, now."""
# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled: now, and 16 bits higher since boot
BITS = {UNDERVOLTAGE: "undervoltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


def throttled(text: Callable[[str], str | None], run: Callable[..., str | None]) -> int | None:
    """Return the firmware's bits, from its file in /sys or else `vcgencmd get_throttled`; None on what is no Pi.

    `text` returns a file's text, `run` what a program prints; each returns None if there is none.
    """
    said = (text(THROTTLED) or "").strip().removeprefix("0x")
    if not said:
        told = re.fullmatch(r"throttled=0x([0-9a-fA-F]+)", (run("vcgencmd", "get_throttled") or "").strip())
        said = told[1] if told else ""
    return int(said, 16) if re.fullmatch(r"[0-9a-fA-F]{1,8}", said) else None


def undervoltage() -> bool | None:
    """Return whether the supply's voltage is too low now, as far as the firmware says; None on what is no Pi."""
    bits = throttled(_text, output_of)
    return None if bits is None else bool(bits >> UNDERVOLTAGE & 1)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text("ascii", "replace")
    except OSError:
        return None
