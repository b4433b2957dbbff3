"""gpiozero's lgpio pins, with an exact duty cycle instead of whole percent, and without glitches.

`LGPIOPin` keeps `int(value * 100)`, which leaves a servo six positions (gpiozero#1209), and claims each pin as an
input, then as a low output, before it sets its state (gpiozero#1177). lgpio completes a cycle that has begun: a line
that is set to 0 or 1 in the middle of a cycle would change again at its end. So pulses are ended first here, which
lgpio does at once, and the line is written then.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import lgpio
from gpiozero.exc import PinInvalidState, PinSetInput
from gpiozero.pins.lgpio import LGPIOFactory, LGPIOPin
from gpiozero.pins.local import LocalPiPin


class FinePin(LGPIOPin):  # type: ignore[misc]  # gpiozero has no types
    """A pin that is claimed when it is first used, in the state that it is to have (`backends.Pin`)."""

    def __init__(self, factory: Any, info: Any) -> None:
        LocalPiPin.__init__(self, factory, info)
        self.is_held = False
        self._pwm: tuple[float, float] | None = None
        self._bounce = None
        self._callback = None
        self._edges = lgpio.BOTH_EDGES
        self._is_output = False
        self._is_claimed = False
        self._has_pulses = False
        self._level = self._idle = False

    def claim(self, level: bool, idle: bool) -> None:
        """Become an output at this level, and keep it until `is_held` is false; `idle` is the level without pulses."""
        self._idle, self.is_held = idle, False
        self.output_with_state(level)
        self.is_held = True

    def close(self) -> None:
        """Release the pin, ending pulses first; a line that another process has stays untouched."""
        self.is_held = False
        if self._is_claimed and self.factory._handle is not None:
            self._set_frequency(None)
            # not as an input first: the line goes from its level to what the kernel and its resistors make of it
            lgpio.gpio_free(self.factory._handle, self._number)
        self._is_claimed = self._is_output = False

    def output_with_state(self, state: bool) -> None:
        """Become an output that is high or low from its first moment on."""
        if self.is_held:
            return
        lgpio.gpio_claim_output(self.factory._handle, self._number, int(state))
        self._level = state
        self._is_output = self._is_claimed = True

    def _set_function(self, value: str) -> None:
        if self.is_held:
            return
        super()._set_function(value)
        self._is_output, self._is_claimed = value == "output", True
        self._level = False

    def _get_state(self) -> float | bool:
        return self._pwm[1] if self._pwm else super()._get_state()

    def _set_state(self, value: float) -> None:
        if self.is_held:
            return
        if self._pwm:
            self._pwm = (self._pwm[0], value)
            self._pulse()
        elif self._is_output:
            self._write(bool(value))
        else:
            raise PinSetInput(f"cannot set state of pin {self!r}")

    def _set_frequency(self, value: float | None) -> None:
        """Send pulses from the next state on that needs some; None for no pulses, which keeps the level."""
        if value and not self._pwm:
            self._pwm = (value, float(self._level))
        elif value and self._pwm:
            self._pwm = (value, self._pwm[1])
            if self._has_pulses:
                self._pulse()
        else:
            self._pwm = None
            if self._has_pulses:
                self._write(self._idle)

    def _pulse(self) -> None:
        """Set lgpio's duty cycle, in percent; lgpio replaces endless pulses at the end of a cycle.

        The states off and on take effect at once.
        """
        frequency, duty = self._pwm or (0.0, 0.0)
        try:
            if duty in (0, 1):
                self._write(bool(duty))
            else:
                lgpio.tx_pwm(self.factory._handle, self._number, frequency, 100 * duty)
                self._has_pulses = True
        except lgpio.error as error:
            raise PinInvalidState(f"cannot set pin {self!r} to {duty}: {error}") from None

    def _write(self, level: bool) -> None:
        """Set the line high or low at once, and keep it."""
        if self._has_pulses:
            lgpio.tx_pwm(self.factory._handle, self._number, 0, 0)
            self._has_pulses = False
        lgpio.gpio_write(self.factory._handle, self._number, int(level))
        self._level = level


class FineFactory(LGPIOFactory):  # type: ignore[misc]
    """The pins of the gpiochip with the number `chip`, as on a Pi of revision `board`; None to detect that."""

    def __init__(self, chip: int, board: int | None) -> None:
        self._board = board
        super().__init__(chip)
        # gpiozero's factories share these, so that closing one closes the pins of all
        self.pins: dict[Any, Any] = {}
        self._reservations: dict[Any, list[Any]] = defaultdict(list)
        self._res_lock = threading.Lock()
        self.pin_class = FinePin

    def _get_revision(self) -> int:
        return self._board if self._board is not None else super()._get_revision()
