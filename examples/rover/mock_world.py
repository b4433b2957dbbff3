"""The hand, the wall and the wires of mock pins, for `taskengine serve --pins mock --tasks mock_world.py`."""

from __future__ import annotations

import threading
import time
from typing import Any

import gpiozero
from gpiozero.pins.mock import MockFactory

from taskengine import BadArguments, NotAllowed, task
from taskengine_hardware import robot

METRES_A_SECOND = 343.0
"""The speed of sound."""


class Wall:
    """Something that an echo comes back from, `metres` away; None: the sensor's wire is off."""

    def __init__(self, trigger: Any, echo: Any) -> None:
        self.metres: float | None = None
        self._echo = echo
        # gpiozero's own trigger with an echo would have to be made before the device is
        self._send = trigger._set_state
        trigger._set_state = self._trigger

    def _trigger(self, level: float) -> None:
        self._send(level)
        if level and self.metres is not None:
            threading.Thread(target=self._answer, args=[self.metres], daemon=True).start()

    def _answer(self, metres: float) -> None:
        time.sleep(0.001)
        self._echo.drive_high()
        time.sleep(2 * metres / METRES_A_SECOND)
        self._echo.drive_low()


_walls: dict[str, Wall] = {}


@task(name="mock.close", lane="hardware")
def close(*contacts: str) -> None:
    """Close contacts: hold the enabling switch, let go of a bumper, pull the stop button out."""
    for pin in [_pins(name)["pin"] for name in contacts]:
        pin.drive_low()


@task(name="mock.open", lane="hardware")
def open_(*contacts: str) -> None:
    """Open contacts: let go of the enabling switch, press a bumper or the stop button, or cut its wire."""
    for pin in [_pins(name)["pin"] for name in contacts]:
        pin.drive_high()


@task(name="mock.wall", lane="hardware")
def wall(metres: float | None = None) -> None:
    """Put a wall so many m in front of the distance sensor; without a number its wire is off."""
    if "distance" not in _walls:
        pins = _pins("distance")
        _walls["distance"] = Wall(pins["trigger"], pins["echo"])
    _walls["distance"].metres = metres


def _pins(name: str) -> dict[str, Any]:
    """Return the mock pins of a device, by what they are for."""
    factory = gpiozero.Device.pin_factory
    if not isinstance(factory, MockFactory):
        raise NotAllowed("these pins are real: nobody but a hand can press what is wired to them")
    for device in robot().devices_list():
        if device["name"] == name:
            return {use: factory.pin(pin) for use, pin in device["pins"].items()}
    raise BadArguments(f"there is no device {name!r}")
