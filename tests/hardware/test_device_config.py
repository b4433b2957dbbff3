from __future__ import annotations

import math
import re
from typing import Any

import gpiozero
import pytest

from taskengine import SettingsError
from taskengine_hardware.device_config import LANE, DeviceLimits, read
from taskengine_hardware.device_types import KINDS, Role

PAN: dict[str, Any] = {"type": "AngularServo", "pin": 18}
WHEEL: dict[str, Any] = {"type": "Motor", "forward": 5, "backward": 6}
BASE: dict[str, Any] = {"type": "Robot", "left": [5, 6], "right": [7, 8]}
ADC: dict[str, Any] = {"type": "MCP3008", "channel": 0}


def refused(table: dict[str, Any]) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        read(table)
    return caught.value


def test_defaults() -> None:
    layout = read({"devices": {"pan": PAN, "lamp": {"type": "LED", "pin": "BOARD11"}}})
    pan, lamp = layout.devices.values()
    assert (pan.lane, pan.safe, pan.lease, pan.rate, pan.limits) == (LANE, "detach", 0.5, 10.0, DeviceLimits(-90, 90))
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
    assert pan.limits == DeviceLimits(-30, 20, 90, 360)
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
    assert tone.limits == DeviceLimits(110, 1760)


@pytest.mark.parametrize(
    ("entry", "key", "text"),
    [
        ({"type": "Sevro", "pin": 18}, "type", "the nearest is Servo"),
        ({"type": "led", "pin": 18}, "type", "the nearest is LED"),
        ({"type": "BUZZER", "pin": 18}, "type", "the nearest is Buzzer"),
        ({"type": "Xyz", "pin": 18}, "type", "expected one of "),
        ({"type": "Servo", "PIN": 18}, "PIN", "the nearest is pin"),
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
        (PAN | {"min_pulse_width": 0.0}, "min_pulse_width", "from 1e-05"),
        (PAN | {"max_pulse_width": 0.05}, "max_pulse_width", "max_pulse_width (0.05) < frame_width (0.02)"),
        (PAN | {"frame_width": 2.5}, "frame_width", "a number from 0.001 to 1, not 2.5"),
        (WHEEL | {"safe": "hold"}, "safe", "a Motor is safe when it stands"),
        (WHEEL | {"safe": 0.5}, "safe", "a Motor is safe when it stands"),
        (WHEEL | {"safe": False}, "safe", "a Motor is safe when it stands"),
        (BASE | {"safe": "hold"}, "safe", "a Robot is safe when it stands"),
        (BASE | {"safe": [0, 0.1]}, "safe", "a Robot is safe when it stands"),
        (WHEEL | {"pwm": False, "limits": {"speed": 1}}, "limits", "only on or off, and has no limits"),
        (WHEEL | {"pwm": False, "soft_start": 1}, "soft_start", "only on or off, and has no soft_start"),
        ({"type": "Button", "pin": 2, "pull_up": False}, "pull_up", "GPIO2 has a resistor on the board"),
        ({"type": "Button", "pin": 3, "active_state": True}, "active_state", "GPIO3 has a resistor on the board"),
        ({"type": "DigitalInput", "pin": 2}, "pin", "expected pull_up = true"),
        ({"type": "LightSensor", "pin": 3}, "pin", "expected another pin"),
        ({"type": "DistanceSensor", "echo": 2, "trigger": 4}, "echo", "expected another pin"),
        ({"type": "MCP3008", "miso_pin": 2}, "miso_pin", "expected another pin"),
        ({"type": "Button", "pin": 4, "pull_up": True, "active_state": True}, "active_state", "cannot both be given"),
        ({"type": "Button", "pin": 4, "bounce_time": -0.1}, "bounce_time", "from 0 to 5"),
        ({"type": "MCP3008", "channel": 8}, "channel", "a whole number from 0 to 7, not 8"),
        ({"type": "MCP3302", "channel": 4}, "channel", "a whole number from 0 to 3, not 4"),
        ({"type": "MCP3202", "channel": 2}, "channel", "a whole number from 0 to 1, not 2"),
        ({"type": "MCP3008", "port": 7}, "port", "from 0 to 0, not 7"),
        ({"type": "MCP3008", "device": 2}, "device", "from 0 to 1, not 2"),
        ({"type": "MCP3008", "device": 1, "select_pin": 5}, "device", "device and select_pin cannot both be given"),
        ({"type": "MCP3008", "max_voltage": 0}, "max_voltage", "from 0.001"),
        ({"type": "TonalBuzzer", "pin": 4, "octaves": 0}, "octaves", "from 1 to 4, not 0"),
        ({"type": "TonalBuzzer", "pin": 4, "octaves": 5}, "octaves", "from 1 to 4, not 5"),
        ({"type": "MotionSensor", "pin": 4, "queue_len": 0}, "queue_len", "from 1 to 1000, not 0"),
        ({"type": "LineSensor", "pin": 4, "sample_rate": 0}, "sample_rate", "from 0.01 to 1000, not 0"),
        ({"type": "LineSensor", "pin": 4, "threshold": 1}, "threshold", "from 0.001 to 0.999, not 1"),
        ({"type": "LightSensor", "pin": 4, "charge_time_limit": 0}, "charge_time_limit", "from 0.0001"),
        ({"type": "PWMLED", "pin": 4, "frequency": 0}, "frequency", "from 1 to 10000, not 0"),
        ({"type": "PWMLED", "pin": 4, "frequency": math.inf}, "frequency", "expected a whole number, not inf"),
        ({"type": "LoadAverage", "minutes": 2}, "minutes", "one of 1, 5, 15, not 2"),
        (
            {"type": "LoadAverage", "max_load_average": 0},
            "max_load_average",
            "min_load_average (0) < max_load_average (0)",
        ),
        ({"type": "CPUTemperature", "min_temp": 100}, "min_temp", "min_temp (100) < max_temp (100)"),
        ({"type": "RotaryEncoder", "a": 4, "b": 5, "wrap": True}, "wrap", "wrap needs max_steps"),
        (
            {"type": "DistanceSensor", "echo": 4, "trigger": 5, "max_distance": 0.3},
            "max_distance",
            "threshold_distance (0.3) < max_distance (0.3)",
        ),
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
        ({"type": "Button", "pin": 4, "max_age": 0.1}, "max_age", "would be too old each time"),
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
        ({"devices": {"a": PAN}, "chip": -1}, "the label of a gpiochip"),
        ({"devices": {"a": PAN}, "chip": ""}, "the label of a gpiochip"),
        ({"devices": {"a": PAN}, "chip": True}, "the label of a gpiochip"),
        ({"devices": {"a": PAN}, "chip": "a b"}, "or its number"),
        ({"devices": {"a": PAN}, "board": "Pi 3"}, "the revision code of a Pi with 40 pins"),
        ({"devices": {"a": PAN}, "board": "000d"}, "the revision code of a Pi with 40 pins"),
        ({"devices": {"a": PAN}, "board": "123456"}, "the revision code of a Pi with 40 pins"),
        ({"devices": {"a": PAN}, "board": "0000"}, "the revision code of a Pi with 40 pins"),
        ({"devices": {"a": PAN}, "exclusive": 0}, "from 0.1 to 3600"),
        ({"devices": {"a": PAN, "b": {"type": "LED", "pin": "GPIO18"}}}, "hardware.devices.b: GPIO18 is a's already"),
        ({"devices": {f"d{i}": {"type": "LoadAverage"} for i in range(65)}}, "at most 64"),
        ({"devices": {"m": ADC, "l": {"type": "LED", "pin": 8}}}, "GPIO8 is m's"),
        ({"devices": {"m": ADC | {"device": 1}, "l": {"type": "LED", "pin": 7}}}, "GPIO7 is m's"),
        ({"devices": {"m": ADC | {"select_pin": 5}, "l": {"type": "LED", "pin": 11}}}, "GPIO11 is m's"),
        ({"devices": {"m": ADC | {"select_pin": 5}, "n": ADC | {"clock_pin": 5}}}, "n: GPIO5 is m's"),
        ({"devices": {"m": ADC | {"miso_pin": 5}, "n": ADC | {"miso_pin": 6}}}, "n.miso_pin: it shares m's bus"),
        ({"devices": {"m": ADC, "n": ADC | {"select_pin": 5}}}, "selects only one of it and m"),
        (
            {"devices": {"m": ADC | {"miso_pin": 5}, "n": ADC | {"miso_pin": 5, "lane": "x"}}},
            "n.lane: it shares m's bus",
        ),
    ],
)
def test_what_is_wrong_with_the_whole(table: dict[str, Any], text: str) -> None:
    assert text in str(refused(table))


def test_channels_of_a_converter_share_its_bus() -> None:
    layout = read({"devices": {f"c{i}": {"type": "MCP3008", "channel": i} for i in range(8)}})
    assert len(layout.devices) == 8


def test_a_second_chip_on_the_bus_is_selected_by_another_pin() -> None:
    layout = read({"devices": {"m": ADC, "n": ADC | {"device": 1}, "l": {"type": "LED", "pin": 4}}})
    assert [set(device.gpios()) for device in layout.devices.values()] == [{8, 9, 10, 11}, {7, 9, 10, 11}, {4}]
    soft = read({"devices": {"m": ADC | {"select_pin": 5}, "n": ADC | {"select_pin": 6}}})
    assert [set(device.gpios()) for device in soft.devices.values()] == [{5, 9, 10, 11}, {6, 9, 10, 11}]
    assert read({"devices": {"m": ADC, "n": ADC | {"channel": 1, "lane": "x"}}}).lanes == [LANE, "x"]


@pytest.mark.parametrize("safe", ["detach", 0, 0.0])
def test_a_motor_is_safe_when_it_stands(safe: Any) -> None:
    assert read({"devices": {"wheel": WHEEL | {"safe": safe}}}).devices["wheel"].safe == "detach"
    assert (
        read({"devices": {"base": BASE | {"safe": [safe, safe] if safe == 0 else safe}}}).devices["base"].safe
        == "detach"
    )


def test_an_encoder_counts_without_end_unless_it_is_told() -> None:
    encoder = {"type": "RotaryEncoder", "a": 2, "b": 3}
    assert read({"devices": {"e": encoder}}).devices["e"].options == {"max_steps": 0}
    assert read({"devices": {"e": encoder | {"max_steps": 9, "wrap": True}}}).devices["e"].options["max_steps"] == 9


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
