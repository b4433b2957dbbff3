from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpiozero
import pytest

from taskengine import TaskFailed
from taskengine_hardware import read
from taskengine_hardware.backends import mock
from taskengine_hardware.control import safe_value, start_value
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.device_set import DeviceSet
from taskengine_hardware.device_types import KINDS, Role
from tests.engine import wait_until
from tests.hardware.conftest import Bench, Table

OUTPUTS = [name for name, kind in KINDS.items() if kind.is_output]
THERMOMETER = Path(__file__).with_name("thermometer")


def entry_of(kind: Any) -> Table:
    """A device of the kind on pins that nobody has."""
    entry: Table = {"type": kind.name}
    free = iter(range(4, 28))
    for name in kind.pins:
        entry[name] = next(free)
    for name in kind.groups:
        entry[name] = [next(free), next(free)]
    if "channel" in kind.options and kind.name not in ("MCP3001", "MCP3201", "MCP3301"):
        entry["channel"] = 0
    elif kind.name == "CPUTemperature":
        entry["sensor_file"] = str(THERMOMETER)
    return entry


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_is_opened_without_moving_anything(name: str) -> None:
    layout = read({"devices": {"x": entry_of(KINDS[name])}})
    factory = mock(layout)
    rig = DeviceSet(layout.devices.values(), factory)
    try:
        driven = [number for number in layout.devices["x"].gpios() if factory.pin(number).state]
        assert driven == []
        assert all(not state.state for number in layout.devices["x"].gpios() for state in factory.pin(number).states)
        assert set(rig.writers) == {0}
    finally:
        rig.close()
        factory.reset()
    rig.close()


VALUES: dict[Role, list[Value]] = {
    Role.SWITCH: [False, True],
    Role.LEVEL: [0.0, 1.0, 0.25],
    Role.COLOUR: [(0.0, 0.0, 0.0), (1.0, 0.0, 1.0), (0.0, 0.5, 1.0)],
    Role.MOTOR: [0.0, 1.0, -1.0, 0.5],
    Role.DRIVE: [(0.0, 0.0), (-1.0, 1.0), (0.5, -1.0)],
    Role.SERVO: [None, 0.5],
    Role.TONE: [None, 440.0],
}


def cases() -> Iterator[tuple[Table, Value]]:
    """Every type of output, also where it is on while its line is low, with values of every make."""
    for name in OUTPUTS:
        kind = KINDS[name]
        for active_high in (True, False) if "active_high" in kind.options else (True,):
            entry = entry_of(kind)
            for value in VALUES[kind.role]:
                yield entry if active_high else entry | {"active_high": False}, value


@pytest.mark.parametrize(("entry", "value"), [*cases()])
def test_an_output_has_its_value_from_the_first_moment_to_the_last(entry: Table, value: Value) -> None:
    """Its pins go from their resting level to their state without a step between, and end at none that is on."""
    layout = read({"devices": {"x": entry}})
    device = layout.devices["x"]
    numbers = [*device.gpios()]
    told = DeviceSet([device], mock(layout))
    told.writers[0](value)
    wanted = [(told.factory.pin(number).state, told.factory.pin(number).frequency) for number in numbers]
    told.close()
    rig = DeviceSet([device], mock(layout), lambda device: value)
    pins = [rig.factory.pin(number) for number in numbers]
    assert [(pin.state, pin.frequency) for pin in pins] == wanted
    rig.close()
    idle = not entry.get("active_high", True)
    for pin, (state, _) in zip(pins, wanted, strict=True):
        ways = [False, state] if state in (0, 1) else [False, idle, state, idle]
        assert [seen.state for seen in pin.states] == [state for state, _ in itertools.groupby(ways)]


def test_a_device_that_cannot_be_opened_is_left_out_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = read({"devices": {"eye": entry_of(KINDS["Button"]), "lamp": {"type": "LED", "pin": 20}}})
    factory = mock(layout)
    monkeypatch.setattr(gpiozero, "Button", lambda **options: 1 / 0)
    rig = DeviceSet(layout.devices.values(), factory)
    assert rig.failed == {"eye": "GPIO4: division by zero"}
    rig.writers[layout.devices["lamp"].place](True)
    assert factory.pin(20).state
    assert list(rig.rest(layout.of(LANE)[1:], lambda device: True)) == []
    monkeypatch.undo()
    assert rig.again(layout.devices["eye"])
    assert rig.failed == {}
    rig.close()


def test_what_was_left_out_is_named_where_the_others_are_brought_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = read({"devices": {"tail": {"type": "PWMLED", "pin": 21}, "lamp": {"type": "LED", "pin": 20}}})
    monkeypatch.setattr(gpiozero, "PWMLED", lambda **options: 1 / 0)
    rig = DeviceSet(layout.devices.values(), mock(layout))
    rig.writers[1](True)
    assert list(rig.rest(layout.devices.values(), lambda device: True)) == ["tail: GPIO21: division by zero"]
    assert not rig.factory.pin(20).state
    rig.close()


def test_a_servo_that_is_safe_at_a_position_is_not_moved_by_the_start() -> None:
    layout = read({"devices": {"grip": {"type": "Servo", "pin": 10, "safe": -1.0}}})
    factory = mock(layout)
    for at, state in ((start_value, 0.0), (lambda device: safe_value(device, None), 0.05)):
        rig = DeviceSet(layout.devices.values(), factory, at)
        assert factory.pin(10).state == pytest.approx(state)
        rig.close()


@pytest.mark.parametrize(
    ("entry", "value", "states"),
    [
        ({"type": "Servo", "pin": 10}, -1.0, {10: 0.05}),
        ({"type": "Servo", "pin": 10}, 0.5, {10: 0.0875}),
        ({"type": "Servo", "pin": 10}, None, {10: 0.0}),
        ({"type": "Servo", "pin": 10, "min_pulse_width": 0.0005, "max_pulse_width": 0.0025}, 1.0, {10: 0.125}),
        ({"type": "Servo", "pin": 10, "frame_width": 0.01}, 0.0, {10: 0.15}),
        ({"type": "AngularServo", "pin": 10, "min_angle": 0, "max_angle": 180}, 45.0, {10: 0.0625}),
        ({"type": "AngularServo", "pin": 10, "min_angle": 60, "max_angle": -60}, 60.0, {10: 0.05}),
        ({"type": "LED", "pin": 10}, True, {10: True}),
        ({"type": "LED", "pin": 10, "active_high": False}, True, {10: False}),
        ({"type": "PWMLED", "pin": 10}, 0.25, {10: 0.25}),
        ({"type": "RGBLED", "red": 10, "green": 11, "blue": 12}, (1.0, 0.5, 0.0), {10: 1.0, 11: 0.5, 12: 0.0}),
        ({"type": "Motor", "forward": 10, "backward": 11}, 0.75, {10: 0.75, 11: 0.0}),
        ({"type": "Motor", "forward": 10, "backward": 11}, -0.25, {10: 0.0, 11: 0.25}),
        ({"type": "PhaseEnableMotor", "phase": 10, "enable": 11}, -0.5, {10: True, 11: 0.5}),
        ({"type": "Robot", "left": [10, 11], "right": [12, 13]}, (1.0, -0.5), {10: 1.0, 11: 0.0, 12: 0.0, 13: 0.5}),
        ({"type": "Buzzer", "pin": 10}, True, {10: True}),
    ],
)
def test_a_value_reaches_the_pins(entry: Table, value: Any, states: dict[int, float]) -> None:
    layout = read({"devices": {"x": entry}})
    factory = mock(layout)
    rig = DeviceSet(layout.devices.values(), factory)
    rig.writers[0](value)
    assert {number: pytest.approx(float(factory.pin(number).state)) for number in states} == states
    rig.close()
    factory.reset()


def test_a_servo_is_where_gpiozero_has_it() -> None:
    layout = read({"devices": {"x": {"type": "AngularServo", "pin": 10, "min_angle": -42, "max_angle": 44}}})
    factory = mock(layout)
    rig = DeviceSet(layout.devices.values(), factory)
    for angle in (-42.0, -10.0, 0.0, 33.3, 44.0):
        rig.writers[0](angle)
        assert rig.opened[0].angle == pytest.approx(angle)
        assert rig.opened[0].pwm_device.pin.frequency == 50
    rig.writers[0](None)
    assert rig.opened[0].angle is None
    rig.close()
    factory.reset()


def test_a_tone_is_played_and_ends() -> None:
    layout = read({"devices": {"x": {"type": "TonalBuzzer", "pin": 10}}})
    factory = mock(layout)
    rig = DeviceSet(layout.devices.values(), factory)
    rig.writers[0](440.0)
    assert factory.pin(10).frequency == pytest.approx(440)
    rig.writers[0](None)
    assert not factory.pin(10).state
    rig.close()
    factory.reset()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.is_output])
def test_an_input_is_opened_and_read(name: str, bench: Callable[..., Bench]) -> None:
    """All but those that mock pins do not have: a chip, and something that an echo comes back from."""
    one = bench({"x": entry_of(KINDS[name]) | {"rate": 50}})
    missing = KINDS[name].missing
    wait_until(lambda: one.commands.devices_state()["x"].get("reason", "") == missing, 5, "the first measurement")
    if missing:
        with pytest.raises(TaskFailed, match=missing):
            one.commands.sensor_read("x")
    else:
        assert isinstance(one.commands.sensor_read("x"), (int, float))


def test_mock_pins_remember_only_so_much() -> None:
    layout = read({"devices": {"x": {"type": "LED", "pin": 10}}})
    factory = mock(layout)
    rig = DeviceSet(layout.devices.values(), factory)
    for number in range(10_000):
        rig.writers[0](bool(number % 2))
    assert len(factory.pin(10).states) == 4096
    rig.close()
    factory.reset()
