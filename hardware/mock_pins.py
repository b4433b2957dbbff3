"""gpiozero's mock pins, with a limited history of states, and claimed at a level as real pins are."""

from __future__ import annotations

from collections import deque
from typing import Any

from gpiozero.pins.mock import MockFactory, MockPWMPin

STATES = 4096
"""How many of its last states a pin remembers."""


class MockPin(MockPWMPin):  # type: ignore[misc]  # gpiozero has no types
    """A pin that exists in memory only (`backends.Pin`)."""

    def __init__(self, factory: Any, info: Any) -> None:
        self.is_held = False
        self._idle = False
        super().__init__(factory, info)

    def clear_states(self) -> None:
        super().clear_states()
        self.states: deque[Any] = deque(self.states, maxlen=STATES)

    def claim(self, level: bool, idle: bool) -> None:
        """Become an output at this level, and keep it until `is_held` is false; `idle` is the level without pulses."""
        self._idle, self.is_held = idle, False
        self._function = "output"
        self._change_state(level)
        self.is_held = True

    def close(self) -> None:
        self.is_held = False
        super().close()

    def _set_function(self, value: str) -> None:
        if not self.is_held:
            super()._set_function(value)

    def _set_state(self, value: float) -> None:
        if self.is_held:
            return
        if self._function == "output":
            self._change_state(float(value))
        else:
            super()._set_state(value)

    def _set_frequency(self, value: float | None) -> None:
        """Send pulses; None ends them, which keeps the level."""
        self._frequency = value
        if value is None and self._state not in (0, 1):
            self._change_state(self._idle)


def factory(revision: int) -> Any:
    """Return the pins of a Pi of this revision."""
    return MockFactory(revision=f"{revision:x}", pin_class=MockPin)
