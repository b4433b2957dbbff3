"""gpiozero's pins of pigpiod, without glitches.

The daemon goes on driving lines after their client has left, so that the next one takes a line over without a gap.
gpiozero's own `PiGPIOPin` makes it an input first, then low, and only then sets its state.
"""

from __future__ import annotations

from typing import Any

from gpiozero.pins.pi import PiPin
from gpiozero.pins.pigpio import PiGPIOFactory, PiGPIOPin

FULL = 10_000
"""The number of steps of a duty cycle, as in gpiozero."""


class DaemonPin(PiGPIOPin):  # type: ignore[misc]  # gpiozero has no types
    """A pin that is touched when it is first used, in the state that it is to have (`backends.Pin`)."""

    def __init__(self, factory: Any, info: Any) -> None:
        PiPin.__init__(self, factory, info)
        self.is_held = False
        self._pull = info.pull or "floating"
        self._pwm = False
        self._bounce = None
        self._callback = None
        self._edges = self.GPIO_EDGES["both"]
        self._is_claimed = False
        self._idle = False

    def claim(self, level: bool, idle: bool) -> None:
        """Become an output at this level, and keep it until `is_held` is false; `idle` is the level without pulses."""
        self._idle, self._pull, self._is_claimed = idle, "floating", True
        # ends any pulses, and makes it an output
        self.factory.connection.write(self._number, int(level))
        self.is_held = True

    def close(self) -> None:
        self.is_held = False
        if self._is_claimed:
            super().close()
        self._is_claimed = False

    def _set_function(self, value: str) -> None:
        if not self.is_held:
            self._is_claimed = True
            self.factory.connection.set_glitch_filter(self._number, 0)
            super()._set_function(value)

    def _set_state(self, value: float) -> None:
        if not self.is_held:
            super()._set_state(value)

    def _set_frequency(self, value: float | None) -> None:
        """Send pulses; None ends them, which keeps the level."""
        connection = self.factory.connection
        if value is None and self._pwm:
            duty = connection.get_PWM_dutycycle(self._number)
            level = duty == FULL if duty in (0, FULL) else self._idle
            connection.write(self._number, int(level))
            self._pwm = False
        elif value is not None and not self._pwm:
            level = connection.read(self._number)
            connection.set_PWM_frequency(self._number, int(value))
            connection.set_PWM_range(self._number, FULL)
            connection.set_PWM_dutycycle(self._number, FULL * level)
            self._pwm = True
        else:
            super()._set_frequency(value)


def factory() -> Any:
    """Return the pins of the daemon, here or at PIGPIO_ADDR. Raises OSError if none answers."""
    made = PiGPIOFactory()
    made.pin_class = DaemonPin
    return made
