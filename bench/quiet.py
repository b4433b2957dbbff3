"""Waits until others leave the machine alone, up to a point: a neighbour's work would be measured with ours."""

from __future__ import annotations

import time

from bench.machine import busy_elsewhere

LOOK_S = 0.1
PAUSE_S = 0.5
BUSY = 0.15


class Quiet:
    """A run's patience, in s, for all of its rounds together; `waited` is how much of it was used."""

    def __init__(self, patience: float) -> None:
        self.waited = 0.0
        self._patience = patience

    def wait(self) -> None:
        """Return when others take little of the machine, or when patience is over."""
        start = time.monotonic()
        while self.waited < self._patience and busy_elsewhere(LOOK_S) > BUSY:
            time.sleep(PAUSE_S)
            now = time.monotonic()
            self.waited, start = self.waited + now - start, now
