"""The choice of the backend: the setting PINS, and the variable that users of gpiozero know."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskengine import SettingsError
from taskengine_hardware import backends, chips
from taskengine_hardware.backends import BACKENDS, chosen, warm_up
from taskengine_hardware.chips import ChipInfo
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


def test_a_chip_is_looked_for_in_advance_and_again_only_after_it_could_not_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All chips are opened for that, which takes longer than outputs may be left alone by a dead owner."""
    looked: list[int] = []

    def look(folder: Path) -> dict[int, ChipInfo]:
        looked.append(1)
        return {3: ChipInfo("gpiochip3", "sunxi")}

    monkeypatch.setattr(chips, "_chips", look)
    opened: list[int] = []
    monkeypatch.setattr(backends, "_fine", lambda: lambda chip, board: opened.append(chip))
    chips.find_chip.cache_clear()
    warm_up("lgpio", LAYOUT)
    assert looked == [1]
    BACKENDS["lgpio"](LAYOUT)
    BACKENDS["lgpio"](LAYOUT)
    assert (looked, opened) == ([1], [3, 3])

    def fail(chip: int, board: int | None) -> None:
        raise OSError("it is gone")

    monkeypatch.setattr(backends, "_fine", lambda: fail)
    for _ in range(2):
        with pytest.raises(SettingsError, match="gpiochip3 cannot be opened"):
            BACKENDS["lgpio"](LAYOUT)
    assert looked == [1, 1]
    chips.find_chip.cache_clear()
