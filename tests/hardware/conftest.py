"""Mock pins for every test in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPWMPin

from taskengine_hardware import pins


@pytest.fixture(autouse=True)
def factory() -> Iterator[MockFactory]:
    """A fresh set of mock pins, with PWM."""
    Device.pin_factory = MockFactory(pin_class=MockPWMPin)
    yield Device.pin_factory
    pins.safe_state()
    Device.pin_factory.reset()
    Device.pin_factory = None
