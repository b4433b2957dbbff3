"""Calls of lgpio, recorded by a chip that does nothing else."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import lgpio
import pytest

from taskengine_hardware import read
from taskengine_hardware.device_set import DeviceSet
from taskengine_hardware.lgpio_pwm import FineFactory

FRAME_US = 20_000
MakeRig = Callable[..., DeviceSet]


class Chip:
    """Stands for the C library: the calls, as (function, line, arguments)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, tuple[Any, ...]]] = []
        self.busy: set[int] = set()
        self.outputs: set[int] = set()

    def called(self, name: str) -> Any:
        def call(handle: int, line: int, *args: Any) -> int:
            if line in self.busy:
                raise lgpio.error("GPIO busy")
            self.calls.append((name, line, args))
            if name.startswith("gpio_claim"):
                (self.outputs.add if name.endswith("output") else self.outputs.discard)(line)
            return 0

        return call

    def of(self, name: str, line: int) -> list[tuple[Any, ...]]:
        return [args for function, number, args in self.calls if (function, number) == (name, line)]


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Chip:
    chip = Chip()
    for name in (
        "gpio_claim_output",
        "gpio_claim_input",
        "gpio_claim_alert",
        "gpio_write",
        "gpio_free",
        "gpio_set_debounce_micros",
        "tx_pwm",
    ):
        monkeypatch.setattr(lgpio, name, chip.called(name))
    monkeypatch.setattr(lgpio, "gpiochip_open", lambda number: 0)
    monkeypatch.setattr(lgpio, "gpiochip_close", lambda handle: 0)
    monkeypatch.setattr(lgpio, "gpio_get_mode", lambda handle, line: 2 if line in chip.outputs else 0)
    monkeypatch.setattr(lgpio, "gpio_read", lambda handle, line: 0)
    monkeypatch.setattr(lgpio, "callback", lambda *args: type("Callback", (), {"cancel": lambda self: None})())
    return chip


@pytest.fixture
def rig(chip: Chip) -> Iterator[Callable[..., DeviceSet]]:
    """Makes a rig of one device."""
    made: list[DeviceSet] = []

    def make(**device: Any) -> DeviceSet:
        made.append(rig_of(x=device))
        return made[-1]

    yield make
    for one in made:
        one.close()


def rig_of(**devices: Any) -> DeviceSet:
    layout = read({"devices": devices, "board": "a020d3", "chip": 0})
    return DeviceSet(layout.devices.values(), FineFactory(0, layout.board))


def test_importing_lgpio_leaves_us_where_we_are() -> None:
    assert os.path.exists(os.getcwd())
    assert "taskengine-lg" not in os.getcwd()
    assert "LG_WD" not in os.environ


def test_servo_pulses_are_continuous(chip: Chip, rig: MakeRig) -> None:
    """gpiozero's own pin gives a servo six positions (gpiozero#1209)."""
    made = rig(type="AngularServo", pin=18, min_angle=-90, max_angle=90)
    chip.calls.clear()
    for tenths in range(-900, 901):
        made.writers[0](tenths / 10)
    widths = [args[1] / 100 * FRAME_US for args in chip.of("tx_pwm", 18)]
    assert {args[0] for args in chip.of("tx_pwm", 18)} == {50}
    assert len(widths) == 1801
    assert (widths[0], widths[-1]) == (pytest.approx(1000), pytest.approx(2000))
    steps = [after - before for before, after in itertools.pairwise(widths)]
    assert all(0 < step < 10 for step in steps)
    assert max(steps) == pytest.approx(1000 / 1800)


def test_opening_a_servo_sends_no_pulse(chip: Chip, rig: MakeRig) -> None:
    rig(type="Servo", pin=18)
    assert chip.calls == [("gpio_claim_output", 18, (0,))]


def test_detaching_ends_the_pulses_and_leaves_the_line_low(chip: Chip, rig: MakeRig) -> None:
    made = rig(type="Servo", pin=18)
    made.writers[0](0.5)
    chip.calls.clear()
    made.writers[0](None)
    assert chip.calls == [("tx_pwm", 18, (0, 0)), ("gpio_write", 18, (0,))]
    made.writers[0](0.0)
    assert chip.of("tx_pwm", 18)[-1] == (50, pytest.approx(7.5))


@pytest.mark.parametrize(("active_high", "level"), [(True, 0), (False, 1)])
def test_an_output_is_claimed_once_at_the_level_that_is_off(
    chip: Chip, rig: MakeRig, active_high: bool, level: int
) -> None:
    """gpiozero's own pin is claimed as an input, then as a low output, and then told its level (gpiozero#1177)."""
    made = rig(type="DigitalOutput", pin=22, active_high=active_high)
    assert chip.calls == [("gpio_claim_output", 22, (level,))]
    made.writers[0](True)
    assert chip.calls[-1] == ("gpio_write", 22, (1 - level,))


def test_a_motor_has_its_speed_in_fine_steps(chip: Chip, rig: MakeRig) -> None:
    made = rig(type="Motor", forward=5, backward=6)
    chip.calls.clear()
    for speed in (0.101, 0.105, -0.255):
        made.writers[0](speed)
    assert [args[1] for args in chip.of("tx_pwm", 5)][:2] == [pytest.approx(10.1), pytest.approx(10.5)]
    assert chip.of("tx_pwm", 6)[-1][1] == pytest.approx(25.5)


def test_two_rigs_do_not_close_each_others_pins(chip: Chip, rig: MakeRig) -> None:
    """As the guardian has them, whose lanes' owners have both died."""
    first, second = rig(type="LED", pin=5), rig(type="LED", pin=6)
    second.writers[0](True)
    first.close()
    assert chip.of("gpio_free", 5)
    assert chip.of("gpio_free", 6) == []


def test_a_motor_that_is_stopped_stands_at_once(chip: Chip, rig: MakeRig) -> None:
    """lgpio would end the cycle first, which may take 10 ms."""
    made = rig(type="Motor", forward=5, backward=6)
    made.writers[0](0.5)
    chip.calls.clear()
    made.writers[0](0.0)
    assert chip.calls == [("tx_pwm", 5, (0, 0)), ("gpio_write", 5, (0,)), ("gpio_write", 6, (0,))]


def test_no_cycle_goes_on_after_what_is_to_be_steady(chip: Chip, rig: MakeRig) -> None:
    """A lamp that is off while its line is high: a cycle that ends after that would light it up once more."""
    made = rig(type="PWMLED", pin=5, active_high=False)
    for value, level in ((0.0, 1), (1.0, 0)):
        made.writers[0](0.25)
        assert chip.calls[-1] == ("tx_pwm", 5, (100, 75.0))
        made.writers[0](value)
        assert chip.calls[-2:] == [("tx_pwm", 5, (0, 0)), ("gpio_write", 5, (level,))]


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize(("active_high", "level"), [(True, 0), (False, 1)])
@pytest.mark.parametrize(("type", "pins"), [("PWMLED", {"pin": 5}), ("RGBLED", {"red": 5, "green": 6, "blue": 7})])
def test_pulses_begin_and_end_where_the_output_is_off(
    chip: Chip, rig: MakeRig, type: str, pins: dict[str, int], active_high: bool, level: int, value: float
) -> None:
    made = rig(type=type, active_high=active_high, **pins)
    lines = sorted(pins.values())
    assert chip.calls == [("gpio_claim_output", line, (level,)) for line in lines]
    made.writers[0](value if len(lines) == 1 else (value, value, value))
    made.close()
    assert {args for line in lines for args in chip.of("gpio_write", line)} <= {(level,)}
    assert [line for function, line, _ in chip.calls if function == "gpio_free"] == lines
    assert not any(chip.of("gpio_claim_input", line) for line in lines)


@pytest.mark.parametrize("type", ["DigitalOutput", "PWMLED"])
@pytest.mark.parametrize(("active_high", "level"), [(True, 1), (False, 0)])
def test_what_is_safe_when_it_is_on_is_on_from_its_first_moment_to_its_last(
    chip: Chip, rig: MakeRig, type: str, active_high: bool, level: int
) -> None:
    """The enable of a brake, say."""
    made = rig(type=type, pin=5, active_high=active_high, safe=True if type == "DigitalOutput" else 1.0)
    made.close()
    assert chip.calls == [("gpio_claim_output", 5, (level,)), ("gpio_free", 5, ())]


def test_a_line_that_is_anothers_is_left_out_alone(chip: Chip) -> None:
    chip.busy.add(18)
    made = rig_of(x={"type": "Servo", "pin": 18}, y={"type": "LED", "pin": 17})
    assert made.failed == {"x": "GPIO18: 'GPIO busy'"}
    made.writers[1](True)
    assert chip.calls[-1] == ("gpio_write", 17, (1,))
    made.close()
    assert [line for function, line, _ in chip.calls if function == "gpio_free"] == [17]


def test_a_motor_with_one_line_that_is_anothers_lets_go_of_the_other(chip: Chip, rig: MakeRig) -> None:
    chip.busy.add(6)
    made = rig(type="Motor", forward=5, backward=6)
    assert made.failed == {"x": "GPIO5, GPIO6: 'GPIO busy'"}
    assert chip.calls == [("gpio_claim_output", 5, (0,)), ("gpio_free", 5, ())]
    assert made.writers == {}


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ({"type": "Servo", "pin": 18}, 18),
        ({"type": "Motor", "forward": 18, "backward": 19}, 19),
        ({"type": "RotaryEncoder", "a": 18, "b": 19}, 19),
        ({"type": "Button", "pin": 18}, 18),
    ],
)
def test_what_was_left_out_can_be_had_later(chip: Chip, rig: MakeRig, device: dict[str, Any], line: int) -> None:
    chip.busy.add(line)
    made = rig(**device)
    (one,) = read({"devices": {"x": device}}).devices.values()
    assert not made.again(one)
    assert list(made.failed) == ["x"]
    chip.busy.clear()
    assert made.again(one)
    assert made.failed == {}
    assert set(made.opened) == {0}


def test_a_button_is_claimed_with_its_pull(chip: Chip, rig: MakeRig) -> None:
    rig(type="Button", pin=27)
    assert ("gpio_claim_input", 27, (lgpio.SET_PULL_UP,)) in chip.calls
