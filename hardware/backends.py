"""Pin factories: what drives the pins, by the names that the setting PINS takes.

Another backend, such as for a PCA9685 board or the kernel's PWM, is another row of `BACKENDS`.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from taskengine import SettingsError
from taskengine_hardware.layout import Layout

MOCK_STATES = 4096
"""How many of its last states a mock pin remembers."""


def mock(layout: Layout) -> Any:
    """Pins that are nowhere but in memory, for learning and for tests."""
    from gpiozero.pins.mock import MockFactory, MockPWMPin

    class MockPin(MockPWMPin):  # type: ignore[misc]  # gpiozero has no types
        """As gpiozero's, which remembers every state for ever."""

        def clear_states(self) -> None:
            super().clear_states()
            self.states: deque[Any] = deque(self.states, maxlen=MOCK_STATES)

    return MockFactory(revision=f"{layout.board or 0xA020D3:x}", pin_class=MockPin)


def lgpio(layout: Layout) -> Any:
    """The kernel's gpiochip, by lgpio. Raises SettingsError where there is none."""
    # it makes a file for notifications where it is imported, thus not in a folder of the user's
    os.environ.setdefault("LG_WD", tempfile.mkdtemp(prefix="taskengine-lg-"))
    try:
        from taskengine_hardware.fine import FineFactory
    except ImportError as error:
        raise SettingsError(f"pins: lgpio cannot be imported ({error}): pip install 'taskengine[hardware]'") from None
    return FineFactory(layout.chip, layout.board)


def pigpio(layout: Layout) -> Any:
    """The daemon pigpiod, here or where PIGPIO_ADDR says. Raises SettingsError where there is none."""
    try:
        from gpiozero.pins.pigpio import PiGPIOFactory
    except ImportError as error:
        raise SettingsError(f"pins: pigpio cannot be imported ({error}): pip install pigpio") from None
    try:
        return PiGPIOFactory()
    except OSError as error:
        raise SettingsError(f"pins: no pigpiod answers ({error}); is it running?") from None


def auto(layout: Layout) -> Any:
    """lgpio, where there is a gpiochip. Raises SettingsError where there is none."""
    if not any(Path("/dev").glob("gpiochip*")):
        raise SettingsError("pins: this machine has no /dev/gpiochip; `--pins mock` plays with pins in memory")
    return lgpio(layout)


BACKENDS: Mapping[str, Callable[[Layout], Any]] = {"auto": auto, "lgpio": lgpio, "pigpio": pigpio, "mock": mock}
