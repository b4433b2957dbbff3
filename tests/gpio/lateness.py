"""How late the emulated machine is: its host may not run it for a moment, and the guardian then waits longer."""

from __future__ import annotations

import threading
import time
from typing import Self

from taskengine_hardware.failover import MAX_GRACE_S

_TICK_S = 0.005
_LATE_S = 0.02
"""A thread that wakes later than this finds a machine that is late, rather than its timer."""


class Lateness:
    """Measures in `with` how late a thread wakes."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    @property
    def allowance(self) -> float:
        """What the machine's lateness may add, in s, to the time until an output is safe; 0.0 if it was never late."""
        return self._seconds + MAX_GRACE_S if self._seconds else 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _measure(self) -> None:
        before = time.monotonic()
        while not self._is_over.wait(_TICK_S):
            now = time.monotonic()
            late, before = now - before - _TICK_S, now
            if late > _LATE_S:
                self._seconds += late
