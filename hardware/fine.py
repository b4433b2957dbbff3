"""gpiozero's pins of lgpio, with a duty cycle that is a number and not whole percent, and without blips.

`LGPIOPin` keeps `int(value * 100)`, which leaves a servo six positions (gpiozero#1209), and claims each pin as an
input, then as a low output, before it is told its state (gpiozero#1177).
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
    """A pin that is claimed when it is first used, in the state that it is to have."""

    def __init__(self, factory: Any, info: Any) -> None:
        LocalPiPin.__init__(self, factory, info)
        self._pwm: tuple[float, float] | None = None
        self._bounce = None
        self._callback = None
        self._edges = lgpio.BOTH_EDGES
        self._is_output = False
        self._is_claimed = False

    def close(self) -> None:
        """Be nobody's any more; a line that could not be had stays its owner's."""
        if self._is_claimed:
            super().close()

    def output_with_state(self, state: bool) -> None:
        """Become an output that is high or low from its first moment on."""
        lgpio.gpio_claim_output(self.factory._handle, self._number, int(state))
        self._is_output = self._is_claimed = True

    def _set_function(self, value: str) -> None:
        super()._set_function(value)
        self._is_output, self._is_claimed = value == "output", True

    def _get_state(self) -> float | bool:
        return self._pwm[1] if self._pwm else super()._get_state()

    def _set_state(self, value: float) -> None:
        if self._pwm:
            frequency, _ = self._pwm
            self._pwm = (frequency, value)
            self._pulse()
        elif self._is_output:
            lgpio.gpio_write(self.factory._handle, self._number, int(bool(value)))
        else:
            raise PinSetInput(f"cannot set state of pin {self!r}")

    def _set_frequency(self, value: float | None) -> None:
        if value:
            duty = self._pwm[1] if self._pwm else 0.0
            self._pwm = (value, duty)
            self._pulse()
        elif self._pwm:
            self._pwm = None
            lgpio.tx_pwm(self.factory._handle, self._number, 0, 0)
            lgpio.gpio_write(self.factory._handle, self._number, 0)

    def _pulse(self) -> None:
        """Tell lgpio, whose duty cycle is a number of percent; what it sends for ever is replaced after its cycle.

        What is to be off, or on, is so at once.
        """
        frequency, duty = self._pwm or (0.0, 0.0)
        try:
            lgpio.tx_pwm(self.factory._handle, self._number, frequency, 100 * duty)
            if duty in (0, 1):
                lgpio.gpio_write(self.factory._handle, self._number, int(duty))
        except lgpio.error as error:
            raise PinInvalidState(f"cannot set pin {self!r} to {duty}: {error}") from None


class FineFactory(LGPIOFactory):  # type: ignore[misc]
    """The pins of gpiochip `chip`, as on a Pi of revision `board`; None for what is found."""

    def __init__(self, chip: int | None, board: int | None) -> None:
        self._board = board
        super().__init__(chip)
        # gpiozero's share these, so that closing one closes the pins of all
        self.pins: dict[Any, Any] = {}
        self._reservations: dict[Any, list[Any]] = defaultdict(list)
        self._res_lock = threading.Lock()
        self.pin_class = FinePin

    def _get_revision(self) -> int:
        return self._board if self._board is not None else super()._get_revision()
