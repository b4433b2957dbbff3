"""The clocks of the engine's machine."""

from __future__ import annotations

import time
from pathlib import Path

from taskengine.broker.origins import Moment

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class MachineClock:
    """Reads both clocks. `boot` identifies the machine's boot (random(4)): the clocks begin anew with each boot."""

    def __init__(self) -> None:
        self.boot = boot_number(BOOT_ID.read_text())

    def now(self) -> Moment:
        """Return this moment by both clocks."""
        return Moment(time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def told(self) -> int:
        """Return this moment by the clock that replies carry, in ns."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_number(boot_id: str) -> int:
    """Return the first 8 bytes of a boot's id, as a number below 2**63, which every MessagePack library reads."""
    return int(boot_id.replace("-", "")[:16], 16) & (2**63 - 1)
