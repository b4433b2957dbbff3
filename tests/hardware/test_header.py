from __future__ import annotations

import pytest

from taskengine_hardware import header


@pytest.mark.parametrize(
    ("pin", "gpio"),
    [(18, 18), ("GPIO18", 18), ("BCM18", 18), ("BOARD12", 18), ("J8:12", 18), ("BOARD40", 21), (0, 0), (27, 27)],
)
def test_a_pin_has_many_names(pin: object, gpio: int) -> None:
    assert header.gpio_of(pin) == gpio


@pytest.mark.parametrize(
    "pin", [28, -1, "GPIO28", "BOARD1", "BOARD41", "BOARD0", "BOARD6", "18", "", None, True, 1.5, []]
)
def test_what_is_no_gpio(pin: object) -> None:
    assert header.gpio_of(pin) is None


def test_the_header_is_the_boards() -> None:
    """As gpiozero has it, which has it from the Raspberry Pi's own documents."""
    from gpiozero.pins.mock import MockFactory

    pins = MockFactory(revision="a020d3").board_info.headers["J8"].pins
    for place, name in enumerate(header.HEADER, 1):
        theirs = pins[place].name
        assert (f"GPIO{name}" if isinstance(name, int) else name) == theirs
    assert len(header.GPIOS) == 28


def test_rows_show_who_has_what() -> None:
    rows = header.rows({18: "pan (AngularServo)", 2: "clock (LED)"})
    assert len(rows) == 20
    assert rows[0] == ("", "3V3", "1", "2", "5V", "")
    assert rows[1] == ("clock (LED)", "GPIO2", "3", "4", "5V", "")
    assert rows[5] == ("", "GPIO17", "11", "12", "GPIO18", "pan (AngularServo)")
