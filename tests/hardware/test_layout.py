from __future__ import annotations

import math
import re
from typing import Any

import gpiozero
import pytest

from taskengine import SettingsError
from taskengine_hardware.kinds import KINDS, Role
from taskengine_hardware.layout import LANE, Limits, read

PAN: dict[str, Any] = {"type": "AngularServo", "pin": 18}


def refused(table: dict[str, Any]) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        read(table)
    return caught.value


def test_defaults() -> None:
    layout = read({"devices": {"pan": PAN, "lamp": {"type": "LED", "pin": "BOARD11"}}})
    pan, lamp = layout.devices.values()
    assert (pan.lane, pan.safe, pan.lease, pan.rate, pan.limits) == (LANE, "detach", 0.5, 10.0, Limits(-90, 90))
    assert (lamp.lease, lamp.limits, lamp.pins) == (None, None, {"pin": 17})
    assert (pan.max_age, pan.untimed, pan.on_fault, pan.home, pan.soft_start) == (None, False, "resume", None, 0.0)
    assert layout.lanes == [LANE]
    assert (layout.chip, layout.board, layout.exclusive) == (None, None, 5.0)


def test_everything_said() -> None:
    entry = PAN | {
        "min_angle": -45,
        "max_angle": 45.0,
        "min_pulse_width": 0.0005,
        "limits": {"angle": [-30, 20], "speed": 90, "acceleration": 360},
        "safe": -10,
        "lease": "strict",
        "lane": "head",
        "rate": 50,
        "max_age": 0.1,
        "untimed": True,
        "on_fault": "latch",
        "home": -20,
    }
    layout = read({"devices": {"pan": entry}, "chip": 4, "board": "a020d3", "rate": 5, "exclusive": 2})
    pan = layout.devices["pan"]
    assert layout.exclusive == 2.0
    assert (pan.max_age, pan.untimed, pan.on_fault, pan.home) == (0.1, True, "latch", -20.0)
    assert pan.limits == Limits(-30, 20, 90, 360)
    assert (pan.safe, pan.lease, pan.lane, pan.rate) == (-10.0, 0.25, "head", 50.0)
    assert pan.options == {"min_angle": -45.0, "max_angle": 45.0, "min_pulse_width": 0.0005}


def test_what_drives_stays_stopped_after_a_fault() -> None:
    entries: dict[str, Any] = {
        "base": {"type": "Robot", "left": [2, 3], "right": [4, 5]},
        "wheel": {"type": "Motor", "forward": 6, "backward": 7, "soft_start": 1},
        "fan": {"type": "PWMOutput", "pin": 8, "on_fault": "latch", "soft_start": 0.5},
        "belt": {"type": "PhaseEnableMotor", "phase": 9, "enable": 10, "on_fault": "resume"},
        "pan": {"type": "Servo", "pin": 11},
        "lamp": {"type": "LED", "pin": 12},
    }
    devices = read({"devices": entries}).devices
    assert {name for name, device in devices.items() if device.on_fault == "latch"} == {"base", "wheel", "fan"}
    assert (devices["wheel"].soft_start, devices["fan"].soft_start) == (1.0, 0.5)


def test_a_tone_has_the_range_of_its_octaves() -> None:
    tone = read({"devices": {"t": {"type": "TonalBuzzer", "pin": 4, "octaves": 2}}}).devices["t"]
    assert tone.limits == Limits(110, 1760)


@pytest.mark.parametrize(
    ("entry", "key", "text"),
    [
        ({"type": "Sevro", "pin": 18}, "type", "the nearest is Servo"),
        ({"pin": 18}, None, "expected a type"),
        ({"type": "Servo"}, None, "needs pin"),
        ({"type": "Servo", "pin": 28}, "pin", "there is no pin 28"),
        ({"type": "Servo", "pin": True}, "pin", "there is no pin True"),
        ({"type": "Servo", "pin": 18, "min_angel": 3}, "min_angel", "no such key"),
        ({"type": "Servo", "pin": 18, "min_pulse_width": "1"}, "min_pulse_width", "expected a number"),
        ({"type": "LED", "pin": 18, "active_high": 1}, "active_high", "expected true or false"),
        ({"type": "LED", "pin": 18, "limits": {}}, "limits", "has no limits"),
        ({"type": "LED", "pin": 18, "safe": 0.5}, "safe", "takes, not 0.5"),
        ({"type": "Button", "pin": 18, "safe": "hold"}, "safe", "is read"),
        ({"type": "Button", "pin": 18, "lease": True}, "lease", "is read"),
        (PAN | {"min_pulse_width": 0.0}, None, "0 < min_pulse_width"),
        (PAN | {"max_pulse_width": 0.5}, None, "max_pulse_width < frame_width"),
        (PAN | {"lease": 0.001}, "lease", "from 0.05"),
        (PAN | {"lease": "slack"}, "lease", "from 0.05"),
        (PAN | {"safe": 100}, "safe", "from -90 to 90"),
        (PAN | {"safe": math.nan}, "safe", "from -90 to 90"),
        (PAN | {"limits": {"angle": [-91, 0]}}, "limits", "from -90 to 90"),
        (PAN | {"limits": {"angle": [10, -10]}}, "limits", "[least, most]"),
        (PAN | {"limits": {"value": [0, 1]}}, "limits", "angle = [least, most]"),
        (PAN | {"limits": {"acceleration": 5}}, "limits", "needs one of the speed"),
        (PAN | {"limits": {"speed": 0}}, "limits", "from 1e-06"),
        (PAN | {"min_angle": 90}, "max_angle", "another angle"),
        (PAN | {"lane": "a b"}, "lane", "the name of a lane"),
        (PAN | {"rate": 0}, "rate", "from 0.01"),
        (PAN | {"always": True}, "always", "outputs are published where they have changed"),
        ({"type": "Button", "pin": 4, "always": 1}, "always", "true or false"),
        (PAN | {"max_age": 0}, "max_age", "from 0.01"),
        (PAN | {"untimed": 1}, "untimed", "true or false"),
        (PAN | {"on_fault": "stop"}, "on_fault", '"latch" or "resume"'),
        (PAN | {"home": -91}, "home", "from -90 to 90"),
        (PAN | {"limits": {"angle": [-30, 30]}, "home": 31}, "home", "from -30 to 30"),
        (PAN | {"soft_start": 1}, "soft_start", "a AngularServo has no soft_start"),
        ({"type": "PWMLED", "pin": 4, "soft_start": 61}, "soft_start", "from 0 to 60"),
        ({"type": "LED", "pin": 4, "home": 0}, "home", "a LED has no home"),
        ({"type": "Button", "pin": 4, "max_age": 1}, "max_age", "a Button has no max_age"),
        ({"type": "Button", "pin": 4, "untimed": True}, "untimed", "has no untimed"),
        ({"type": "Button", "pin": 4, "on_fault": "latch"}, "on_fault", "has no on_fault"),
        ({"type": "Robot", "left": [1], "right": [2, 3]}, "left", "[forward, backward]"),
        ({"type": "Robot", "left": [1, 1], "right": [2, 3]}, None, "two of its pins are the same"),
        (3, None, "expected a table"),
    ],
)
def test_what_is_wrong_names_its_key(entry: Any, key: str | None, text: str) -> None:
    error = refused({"devices": {"x": entry}})
    path = ["hardware", "devices", "x", *([] if key is None else [key])]
    assert error.path[: len(path)] == path
    assert str(error).startswith(".".join(path))
    assert text in str(error)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({}, "expected a table [hardware.devices.NAME]"),
        ({"devices": {}}, "expected a table [hardware.devices.NAME]"),
        ({"device": {}}, "no such key"),
        ({"devices": {"a b": PAN}}, "a device's name"),
        ({"devices": {"a": PAN}, "chip": -1}, "the number of a gpiochip"),
        ({"devices": {"a": PAN}, "board": "Pi 3"}, "a revision code"),
        ({"devices": {"a": PAN}, "exclusive": 0}, "from 0.1 to 3600"),
        ({"devices": {"a": PAN, "b": {"type": "LED", "pin": "GPIO18"}}}, "hardware.devices.b: GPIO18 is a's already"),
        ({"devices": {f"d{i}": {"type": "LoadAverage"} for i in range(65)}}, "at most 64"),
        ({"devices": {"m": {"type": "MCP3008", "channel": 0}, "l": {"type": "LED", "pin": 8}}}, "GPIO8 is m's"),
    ],
)
def test_what_is_wrong_with_the_whole(table: dict[str, Any], text: str) -> None:
    assert text in str(refused(table))


def test_channels_of_a_converter_share_its_bus() -> None:
    layout = read({"devices": {f"c{i}": {"type": "MCP3008", "channel": i} for i in range(8)}})
    assert len(layout.devices) == 8


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_table_names_what_gpiozero_has(kind: Any) -> None:
    import inspect

    cls = getattr(gpiozero, kind.class_name)
    known = inspect.signature(cls.__init__).parameters
    takes_more = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    for name in (*kind.pins, *kind.groups, *kind.spare, *kind.options):
        assert name in known or takes_more, name
    if kind.role is Role.INPUT:
        assert hasattr(cls, kind.reads)
        assert all(hasattr(cls, event) for event in kind.events)
    assert kind.is_leased == (kind.role in (Role.SERVO, Role.MOTOR, Role.DRIVE))


def test_lanes_split_the_devices() -> None:
    layout = read({"devices": {"pan": PAN, "leg": {"type": "Servo", "pin": 4, "lane": "legs"}}})
    assert layout.lanes == [LANE, "legs"]
    assert [device.name for device in layout.of("legs")] == ["leg"]
    assert re.fullmatch(r"[a-z]+", layout.lanes[1])
