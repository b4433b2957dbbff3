"""The wall clock of the machine, and whether somebody has set it: a Pi has no clock that runs while it is off."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

SYNCHRONIZED: Final = Path("/run/systemd/timesync/synchronized")
"""The file that systemd-timesyncd makes when it has set the clock (systemd-timesyncd.service(8))."""
_TIME_ERROR: Final = 5
_TIMEX_BYTES: Final = 512
"""More than a `struct timex` has on any machine; its first field, `modes`, is 0 for a question."""


class WallClock:
    """The wall clock; with `is_trusted` it counts as set, whatever the system says."""

    def __init__(self, *, is_trusted: bool = False, mark: Path = SYNCHRONIZED) -> None:
        self._is_set = is_trusted
        self._mark = mark
        self._zone = self._zone_name()

    def now(self) -> float | None:
        """Return the time in s since 1970; None as long as nobody has set the clock."""
        self._is_set = self._is_set or self._mark.exists() or _is_disciplined()
        return time.time() if self._is_set else None

    def has_moved(self) -> bool:
        """Return whether the machine has got another time zone since this was asked last."""
        before, self._zone = self._zone, self._zone_name()
        return before != self._zone

    @staticmethod
    def _zone_name() -> tuple[object, ...]:
        time.tzset()
        return time.tzname, time.timezone, time.altzone


def _is_disciplined() -> bool:
    """Return whether the kernel says that something keeps its clock right (adjtimex(2), as chrony and ntpd have it)."""
    import ctypes  # only where a task waits for the clock

    libc = ctypes.CDLL(None, use_errno=True)
    state: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return 0 <= state < _TIME_ERROR
