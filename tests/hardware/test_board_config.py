from __future__ import annotations

from typing import Any

import pytest

from taskengine import SettingsError
from taskengine_hardware import HardwareConfig, read

HAT = {"type": "PCA9685"}
THEIRS = {"type": "PWM", "chip": "1-0040"}
PAN = {"type": "Servo", "board": "hat", "channel": 3}


def layout_of(boards: dict[str, Any], **devices: Any) -> HardwareConfig:
    return read({"boards": boards, "devices": devices})


def test_a_board_and_a_channel_stand_in_place_of_a_pin() -> None:
    layout = layout_of(
        {"hat": HAT | {"bus": 0, "address": 0x41, "frequency": 60, "oscillator": 26e6, "output_enable": 17}},
        pan=PAN,
        tilt={"type": "AngularServo", "pin": "hat:4"},
        base={"type": "Robot", "board": "hat", "left": [8, 9], "right": [10, 11]},
        wheel={"type": "Motor", "board": "hat", "forward": 5, "backward": 6, "enable": "hat:7"},
        cam={"type": "Servo", "pin": "pwm:1", "frame_width": 0.01},
    )
    pins = {name: device.pins for name, device in layout.devices.items()}
    assert pins == {
        "pan": {"pin": "hat:3"},
        "tilt": {"pin": "hat:4"},
        "base": {"left": ("hat:8", "hat:9"), "right": ("hat:10", "hat:11")},
        "wheel": {"forward": "hat:5", "backward": "hat:6", "enable": "hat:7"},
        "cam": {"pin": "pwm:1"},
    }
    hat = layout.boards["hat"]
    assert (hat.bus, hat.address, hat.output_enable, hat.where) == ("/dev/i2c-0", 0x41, 17, "0x41 on /dev/i2c-0")
    assert layout.devices["pan"].options["frame_width"] == hat.period == 4096 * 106 / 26e6
    assert [*layout.devices["wheel"].gpios()] == []
    assert layout.devices["wheel"].channels == ["hat:5", "hat:6", "hat:7"]
    assert layout.devices["wheel"].boards == ["hat"]


def test_devices_of_one_frequency_share_a_chip_of_the_kernels_driver() -> None:
    layout = layout_of(
        {"hat": THEIRS, "cap": {"type": "PWM", "chip": "1-0041"}},
        pan=PAN,
        tilt={"type": "Servo", "pin": "hat:4"},
        lamp={"type": "LED", "pin": "hat:5"},
        glow={"type": "PWMLED", "pin": "hat:6", "frequency": 50},
        eye={"type": "PWMLED", "pin": "cap:0", "frequency": 1000},
    )
    assert layout.devices["eye"].boards == ["cap"]


def test_a_channel_at_one_of_two_gpios_leaves_the_other_to_devices() -> None:
    layout = layout_of({}, pan={"type": "Servo", "pin": "pwm:0"}, eye={"type": "LED", "pin": 18})
    assert layout.boards["pwm"].gpios_of(0) == (12, 18)
    layout = layout_of({"fans": {"type": "PWM", "chip": "1f0009c000.pwm"}}, fan={"type": "PWMLED", "pin": "fans:2"})
    assert layout.boards["fans"].gpios_of(2) == ()


def test_lights_of_a_group_are_channels() -> None:
    layout = layout_of({"hat": HAT}, bar={"type": "LEDBoard", "board": "hat", "pins": [0, 1], "pwm": True})
    assert [device.pins for device in layout.devices.values()] == [{"pin": "hat:0"}, {"pin": "hat:1"}]


def test_an_enabling_switch_and_a_channel_that_enables_are_told_apart() -> None:
    layout = layout_of(
        {"hat": HAT},
        deadman={"type": "Button", "pin": 27},
        wheel={"type": "Motor", "board": "hat", "forward": 5, "backward": 6, "enable": [7, "deadman"]},
    )
    assert layout.devices["wheel"].enable == "deadman"
    assert layout.devices["wheel"].pins["enable"] == "hat:7"


@pytest.mark.parametrize(
    ("boards", "devices", "path", "text"),
    [
        ({"hat": {}}, {}, "boards.hat", 'expected type = "PCA9685" or "PWM"'),
        ({"hat": {"type": "PCA9865"}}, {}, "boards.hat.type", "expected type"),
        ({"hat": HAT | {"adress": 64}}, {}, "boards.hat.adress", "the nearest is address"),
        ({"hat": HAT | {"address": 0x70}}, {}, "boards.hat.address", "which every board hears"),
        ({"hat": HAT | {"address": 0x80}}, {}, "boards.hat.address", "from 64 to 119"),
        ({"hat": HAT | {"frequency": 40}}, {}, "boards.hat.frequency", "from 50 to 1500"),
        ({"hat": HAT | {"frequency": 1501}}, {}, "boards.hat.frequency", "from 50 to 1500"),
        ({"hat": HAT | {"oscillator": 25}}, {}, "boards.hat.oscillator", "from 2e"),
        ({"hat": HAT | {"bus": "i2c-1"}}, {}, "boards.hat.bus", "expected the number of an I2C bus"),
        ({"hat": HAT | {"bus": "/dev/i2c/1"}}, {}, "boards.hat.bus", 'expected "/dev/i2c-1", the name'),
        ({"hat": HAT | {"bus": "/dev/i2c-01"}}, {}, "boards.hat.bus", 'expected "/dev/i2c-1", the name'),
        ({"hat": HAT | {"output_enable": 28}}, {}, "boards.hat.output_enable", "expected a GPIO"),
        ({"hat": HAT, "cap": HAT}, {}, "boards.cap", "0x40 on /dev/i2c-1 is hat's already"),
        ({"J8": HAT}, {}, "boards.J8", "a board's name"),
        ({"hw": {"type": "PWM"}}, {}, "boards.hw", "because numbers change"),
        ({"hw": {"type": "PWM", "chip": "pwmchip0"}}, {}, "boards.hw.chip", "because numbers change"),
        ({"hat": HAT}, {"pan": {"type": "Servo", "board": "hut", "channel": 3}}, "devices.pan.board", "nearest is hat"),
        ({"hat": HAT}, {"pan": {"type": "Servo", "pin": "hut:3"}}, "devices.pan.pin", "no board is named 'hut'"),
        ({"hat": HAT}, {"pan": {"type": "Servo", "pin": "hat:16"}}, "devices.pan.pin", "the channels 0 to 15, not 16"),
        ({"hat": HAT}, {"pan": PAN | {"channel": 16}}, "devices.pan.channel", "channels 0 to 15, not 16"),
        ({"hat": HAT}, {"pan": PAN | {"channel": True}}, "devices.pan.channel", "expected the number of a channel"),
        ({"hat": HAT}, {"pan": {"type": "Servo", "board": "hat"}}, "devices.pan", "on the board hat needs channel"),
        ({"hat": HAT}, {"pan": PAN | {"pin": 18}}, "devices.pan.channel", "pin is given too"),
        ({"hat": HAT}, {"pan": PAN | {"channel": "pwm:0"}}, "devices.pan.channel", "the number of a channel of hat"),
        ({"hat": HAT}, {"arm": PAN | {"type": "Motor"}}, "devices.arm.channel", "the channels of forward, backward"),
        ({"hat": HAT}, {"pan": PAN, "tilt": PAN}, "devices.tilt", "hat:3 is pan's already"),
        ({"hat": HAT}, {"pan": PAN, "hip": PAN | {"channel": 1, "lane": "legs"}}, "devices.hip.lane", "shares"),
        ({"hat": HAT}, {"key": {"type": "Button", "pin": "hat:3"}}, "devices.key", "a board has outputs only"),
        ({"hat": HAT}, {"horn": {"type": "TonalBuzzer", "pin": "hat:3"}}, "devices.horn", "a frequency of its own"),
        ({"hat": HAT}, {"pan": PAN | {"frame_width": 0.02}}, "devices.pan.frame_width", "one frequency"),
        ({"hat": HAT}, {"eye": PAN | {"type": "PWMLED", "frequency": 100}}, "devices.eye.frequency", "one frequency"),
        ({"hat": HAT | {"frequency": 500}}, {"pan": PAN}, "devices.pan", "a pulse of 2 ms does not fit"),
        ({"hat": HAT | {"output_enable": 17}}, {"lamp": {"type": "LED", "pin": 17}}, "devices.lamp", "output_enable"),
        ({"hat": HAT}, {"arm": {"type": "PhaseEnableMotor", "phase": 5, "enable": "hat:7"}}, "devices.arm", "or none"),
        ({"hat": HAT}, {"arm": {"type": "Motor", "forward": "hat:5", "backward": "pwm:0"}}, "devices.arm", "one board"),
        ({"hat": HAT}, {"eye": PAN | {"type": "LED", "active_high": False}}, "devices.eye.active_high", "high is on"),
        ({}, {"eye": {"type": "LED", "pin": "pwm:0", "active_high": False}}, "devices.eye.active_high", "high is on"),
        (
            {"hat": HAT | {"output_enable": 17}, "cap": HAT | {"address": 0x41, "output_enable": 17}},
            {}, "boards.cap.output_enable", "GPIO17 is the output_enable of hat: each board needs a line of its own",
        ),
        ({"hat": HAT | {"output_enable": 3}}, {}, "boards.hat.output_enable", "GPIO3 is a line of the board's"),
        ({"hat": HAT | {"bus": 0, "output_enable": 1}}, {}, "boards.hat.output_enable", "the board's own bus"),
        ({"hat": HAT}, {"lamp": {"type": "LED", "pin": 2}}, "devices.lamp", "is a line of the bus of hat"),
        ({"hat": HAT, "cap": HAT | {"bus": "/dev//i2c-1"}}, {}, "boards.cap", "0x40 on /dev/i2c-1 is hat's already"),
        ({"hat": HAT, "cap": THEIRS}, {}, "boards.cap", "1-0040 is hat's already"),
        ({"hat": THEIRS, "cap": THEIRS}, {}, "boards.cap", "1-0040 is hat's already"),
        (
            {"hw": {"type": "PWM", "chip": "3f20c000.pwm"}},
            {"pan": {"type": "Servo", "pin": "pwm:0"}, "tilt": {"type": "Servo", "pin": "hw:0"}},
            "boards.hw.chip", "3f20c000.pwm is the board pwm already",
        ),
        ({}, {"pan": {"type": "Servo", "pin": "pwm:4"}}, "devices.pan.pin", "pwm has the channels 0 to 3, not 4"),
        (
            {"hw": {"type": "PWM", "chip": "fe20c000.pwm"}}, {"pan": {"type": "Servo", "pin": "hw:2"}},
            "devices.pan.pin", "hw has the channels 0 to 1, not 2",
        ),
        (
            {}, {"pan": {"type": "Servo", "pin": "pwm:2"}, "eye": {"type": "LED", "pin": 18}},
            "devices.pan", "pwm:2 is at GPIO18, which others have",
        ),
        (
            {"hw": {"type": "PWM", "chip": "1f00098000.pwm"}},
            {"pan": {"type": "Servo", "pin": "hw:1"}, "eye": {"type": "LED", "pin": 13}},
            "devices.pan", "hw:1 is at GPIO13, which others have",
        ),
        (
            {"hat": HAT | {"output_enable": 12}},
            {"pan": {"type": "Servo", "pin": "pwm:0"}, "eye": {"type": "LED", "pin": 18}},
            "devices.pan", "pwm:0 is at GPIO12 or GPIO18, which others have",
        ),
        ({"hat": THEIRS}, {"pan": {"type": "Servo", "pin": "hat:16"}}, "devices.pan.pin", "channels 0 to 15, not 16"),
        ({"hat": HAT | {"frequency": 1500, "oscillator": 20e6}}, {}, "boards.hat.frequency", "19.1 to 1221 Hz"),
        ({"hat": THEIRS}, {"eye": PAN | {"type": "PWMLED", "frequency": 2000}}, "devices.eye", "makes 23.8 to 1526 Hz"),
        ({"hat": THEIRS}, {"eye": PAN | {"type": "PWMLED", "frequency": 20}}, "devices.eye", "makes 23.8 to 1526 Hz"),
        ({"hat": THEIRS}, {"pan": PAN | {"frame_width": 0.05}}, "devices.pan", "makes 23.8 to 1526 Hz, not 20 Hz"),
        (
            {"hat": THEIRS}, {"pan": PAN, "eye": {"type": "PWMLED", "pin": "hat:1"}}, "devices.eye",
            "pan has 50 Hz, and this one 100 Hz",
        ),
        ({"hat": THEIRS}, {"horn": {"type": "TonalBuzzer", "pin": "hat:3"}}, "devices.horn", "a frequency of its own"),
        (
            {"hat": HAT}, {"awake": PAN | {"type": "DigitalOutput", "beat": 0.02, "lease": 0.5}}, "devices.awake.beat",
            "a line beats on a pin of its own",
        ),
        ({"hat": 3}, {}, "boards.hat", "expected a table"),
        ([], {}, "boards", "at most 16 tables"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_key(boards: Any, devices: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(SettingsError, match=text) as caught:
        layout_of(boards, **({"lamp": {"type": "LED", "pin": 4}} | devices))
    assert ".".join(caught.value.path) == f"hardware.{path}"
