"""What the firmware says of the supply, as readings for the cause `undervoltage` of rules."""

from __future__ import annotations

from taskengine import undervoltage

from .plausibility import Measurement

POWER_S = 2.0
"""How often, in s, the firmware is asked: it notes a weak supply for about that long."""
MOCK = "mock"


class Power:
    """The supply of the machine that drives `pins`; simulated pins have a good one where no firmware tells."""

    def __init__(self, pins: str) -> None:
        self._is_simulated = pins == MOCK
        self.is_told = undervoltage() is not None
        """Whether there is a firmware that tells."""

    def measure(self, now: float) -> Measurement:
        """Ask the firmware."""
        is_weak = undervoltage()
        if is_weak is None and self._is_simulated:
            return Measurement(now, False)
        return Measurement(now, is_weak, "" if is_weak is not None else "no firmware tells")
