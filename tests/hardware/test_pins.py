from __future__ import annotations

import pytest
from gpiozero.pins.mock import MockFactory

from taskengine import BadArguments, Client
from taskengine_hardware import pins
from tests.engine import Engine, deadline


def test_a_led_reaches_its_pin(factory: MockFactory) -> None:
    for on in (True, False, True):
        assert pins.set_led(17, on) is on
        assert factory.pin(17).state == on
        assert pins.read_led(17) is on


def test_a_servo_reaches_its_pulse_width(factory: MockFactory) -> None:
    for value, milliseconds in ((-1, 1.0), (0, 1.5), (0.5, 1.75), (1, 2.0)):
        pins.set_servo(18, value)
        assert factory.pin(18).state * 20 == pytest.approx(milliseconds)
    pins.set_servo(18, None)
    assert factory.pin(18).state == 0


def test_making_a_device_moves_nothing(factory: MockFactory) -> None:
    pins.read_led(17)
    pins._device(18, "Servo")
    assert [state.state for state in factory.pin(18).states if state.state] == []
    assert [state.state for state in factory.pin(17).states if state.state] == []


def test_a_value_out_of_range_moves_nothing(factory: MockFactory) -> None:
    with pytest.raises(BadArguments, match="from -1 to 1"):
        pins.set_servo(18, 1.5)
    assert factory.pin(18).state == 0


def test_a_pin_is_one_device(factory: MockFactory) -> None:
    pins.set_servo(18, 0)
    with pytest.raises(BadArguments, match="in use as Servo"):
        pins.set_led(18, True)


def test_safe_state_lets_go_and_may_be_called_twice(factory: MockFactory) -> None:
    pins.set_led(17, True)
    pins.safe_state()
    pins.safe_state()
    assert factory.pin(17).function == "input"


def test_a_remote_client_moves_a_servo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    monkeypatch.setenv("GPIOZERO_MOCK_PIN_CLASS", "mockpwmpin")
    with Engine(tasks="taskengine_hardware") as engine, Client(engine.address, timeout=deadline(20)) as client:
        assert client.call("servo.set", 18, 0.5) == 0.5
        assert client.call("gpio.led", 17, True) is True
        assert client.call("gpio.read", 17) is True
        with pytest.raises(BadArguments):
            client.call("servo.set", 18, 2)
        assert {task.lane for task in client.tasks()} == {"hardware"}
