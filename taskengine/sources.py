"""The built-in sources: the load and the temperature of the board."""

from __future__ import annotations

import os
from pathlib import Path

from taskengine import source

THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")


@source("cpu.temperature", period=1.0)
def cpu_temperature() -> float | None:
    """Temperature of the processor, °C; None on a board that has no sensor."""
    try:
        return int(THERMAL.read_text()) / 1000
    except (OSError, ValueError):
        return None


@source("cpu.load", period=1.0)
def cpu_load() -> float:
    """Processes that run or want to, averaged over one minute."""
    return os.getloadavg()[0]
