"""The choice of the backend: the setting PINS, and the variable that users of gpiozero know."""

from __future__ import annotations

import pytest

from taskengine import SettingsError
from taskengine_hardware import backends
from taskengine_hardware.backends import BACKENDS, chosen, warm_up
from taskengine_hardware.device_config import read
from taskengine_hardware.lines import users

VARIABLE = "GPIOZERO_PIN_FACTORY"
LAYOUT = read({"devices": {"lamp": {"type": "LED", "pin": 4}}})


@pytest.mark.parametrize(("name", "found"), [("mock", "mock"), ("LGPIO", "lgpio"), ("pigpio", "pigpio"), ("", "auto")])
def test_auto_is_what_gpiozero_is_told_to_take(monkeypatch: pytest.MonkeyPatch, name: str, found: str) -> None:
    monkeypatch.setenv(VARIABLE, name)
    assert chosen("auto") == found
    assert chosen("lgpio") == "lgpio", "the setting is the engine's own, and goes first"


def test_pins_in_memory_by_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "mock")
    monkeypatch.setattr(backends, "_fine", lambda: pytest.fail("lgpio was imported"))
    factory = BACKENDS["auto"](LAYOUT)
    assert type(factory).__name__ == "MockFactory"
    factory.close()
    assert users(LAYOUT, "auto") == {}
    warm_up("auto")


@pytest.mark.parametrize("name", ["rpigpio", "native", "auto"])
def test_what_cannot_open_outputs_without_a_blip_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(VARIABLE, name)
    with pytest.raises(SettingsError, match=f"{VARIABLE} is '{name}'.*lgpio, pigpio, mock"):
        BACKENDS["auto"](LAYOUT)
    assert users(LAYOUT, "auto") == {}
    warm_up("auto")
