"""What gpiozero's users know, as tasks: lights and groups of them, robots, tones by their notes, held buttons."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import gpiozero.tones
import pytest

from taskengine import BadArguments, NotAllowed, Origin, Overloaded, SettingsError
from taskengine.config import policy
from taskengine.config.machine import Machine
from taskengine.worker.context import set_origin, set_policy
from taskengine_hardware import owner as owners
from taskengine_hardware import read
from taskengine_hardware.groups import Group
from taskengine_hardware.tones import frequency_of
from tests.engine import deadline, wait_until
from tests.hardware.conftest import Bench

DEVICES: dict[str, Any] = {
    "lamp": {"type": "LED", "pin": 17},
    "glow": {"type": "PWMLED", "pin": 4},
    "dim": {"type": "PWMLED", "pin": 23, "limits": {"value": [0.1, 0.5]}},
    "slow": {"type": "PWMLED", "pin": 24, "limits": {"speed": 2.0}},
    "soft": {"type": "PWMLED", "pin": 25, "soft_start": 0.5},
    "eye": {"type": "RGBLED", "red": 5, "green": 6, "blue": 7},
    "base": {"type": "Robot", "left": [10, 11], "right": [12, 13], "lease": 60},
    "horn": {"type": "TonalBuzzer", "pin": 14},
    "button": {"type": "Button", "pin": 27, "rate": 1000, "hold_time": 0.05, "hold_repeat": True},
    "lights": {"type": "TrafficLights", "red": 16, "yellow": 20, "green": 21, "lease": 60},
    "bar": {"type": "LEDBoard", "pins": {"left": 8, "right": 9}, "pwm": True},
}


@pytest.fixture
def machine(bench: Callable[..., Bench]) -> Bench:
    return bench(DEVICES)


def levels(machine: Bench, *pins: int) -> list[Any]:
    return [pytest.approx(float(machine.pin(pin).state)) for pin in pins]


def effect(machine: Bench, name: str) -> Any:
    return machine.commands.devices_state(name)[name].get("effect")


def test_a_light_is_switched_as_gpiozeros(machine: Bench) -> None:
    for name, pins, on, off in (
        ("lamp", (17,), [1], [0]),
        ("glow", (4,), [1], [0]),
        ("dim", (23,), [0.5], [0.1]),
        ("eye", (5, 6, 7), [1, 1, 1], [0, 0, 0]),
    ):
        machine.commands.led_on(name)
        assert levels(machine, *pins) == on
        machine.commands.led_toggle(name)
        assert levels(machine, *pins) == off
        machine.commands.led_toggle(name)
        assert levels(machine, *pins) == on
        machine.commands.led_off(name)
        assert levels(machine, *pins) == off


def test_a_blink_ends_after_its_cycles_and_is_seen_meanwhile(machine: Bench) -> None:
    machine.commands.led_blink("lamp", 0.2, 0.2, n=3)
    assert effect(machine, "lamp") == "blink"
    wait_until(lambda: effect(machine, "lamp") is None, 5, "the end")
    edges = [state.state for state in machine.pin(17).states]
    assert edges[-1] == 0
    assert 1 <= edges.count(1) <= 3


def test_a_pulse_and_a_fade_pass_through_what_lies_between(machine: Bench) -> None:
    machine.commands.led_pulse("glow", 0.5, 0.5, n=1)
    assert effect(machine, "glow") == "pulse"
    wait_until(lambda: effect(machine, "glow") is None, 5, "the end of the pulse")
    assert len({state.state for state in machine.pin(4).states}) >= 4
    assert machine.commands.led_fade("eye", [1, 0.5, 0], 0.5) == 0.5
    assert effect(machine, "eye") == "fade"
    wait_until(lambda: effect(machine, "eye") is None, 5, "the end of the fade")
    assert machine.owner.control.find("eye").value == (1.0, 0.5, 0.0)


def test_an_rgb_led_blinks_between_its_colours(machine: Bench) -> None:
    machine.commands.led_blink("eye", 60, 60, on_color=[1, 0, 0.5])
    assert levels(machine, 5, 6, 7) == [1, 0, 0.5]
    machine.commands.led_blink("eye", 0, 60, 0.0, 0.0, off_color=[0, 0.25, 0])
    assert levels(machine, 5, 6, 7) == [0, 0.25, 0]
    machine.commands.colour_set("eye", 0, 0, 1)
    assert effect(machine, "eye") is None


def test_a_fade_obeys_the_limits_of_its_light(machine: Bench) -> None:
    assert machine.commands.led_fade("slow", 1.0, 0.1) == pytest.approx(0.5)
    assert machine.commands.led_fade("soft", 1.0, 0.1) == pytest.approx(0.5)
    assert machine.commands.led_fade("glow", 0.5, 0.0) == 0.0
    assert levels(machine, 4) == [0.5]
    with pytest.raises(BadArguments, match=r"dim takes a value from 0\.1 to 0\.5"):
        machine.commands.led_fade("dim", 0.6)


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("lamp", {"fade_in_time": 1.0}, "lamp is on or off, and cannot fade"),
        ("lamp", {"on_color": [1, 1, 1]}, "lamp has no colours"),
        ("lamp", {"n": 0}, "n is a whole number from 1"),
        ("lamp", {"n": 1.5}, "n is a whole number from 1"),
        ("lamp", {"on_time": 0.0, "off_time": 0.001}, "a cycle takes at least 0.02 s"),
        ("lamp", {"on_time": -1}, "a time is a number of seconds"),
        ("slow", {}, "slow has a limit of speed"),
        ("soft", {}, "soft has a limit of speed, or a soft_start"),
        ("eye", {"on_color": [2, 0, 0]}, "eye takes three numbers from 0 to 1"),
        ("base", {}, "base is a Robot, not a switch or level or colour"),
        ("nothing", {}, "no output is named 'nothing'"),
        (["lamp"], {}, "no output is named"),
    ],
)
def test_an_unsuitable_blink_is_refused(machine: Bench, name: Any, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadArguments, match=reason):
        machine.commands.led_blink(name, **arguments)
    assert levels(machine, 17, 24, 25, 5) == [0, 0, 0, 0]


def test_a_switch_neither_pulses_nor_fades(machine: Bench) -> None:
    with pytest.raises(BadArguments, match="PWMLED"):
        machine.commands.led_pulse("lamp")
    with pytest.raises(BadArguments, match="PWMLED"):
        machine.commands.led_fade("lamp", 1.0)
    with pytest.raises(BadArguments, match="PWMLED"):
        machine.commands.led_fade("lights", 1.0)


# Groups ---------------------------------------------------------------------------------------------------------------


def test_a_group_is_commanded_as_one(machine: Bench) -> None:
    machine.commands.led_on("lights")
    assert levels(machine, 16, 20, 21) == [1, 1, 1]
    machine.commands.led_off("lights.amber")
    assert machine.commands.sensor_read("lights") == [True, False, True]
    machine.commands.led_toggle("lights")
    assert levels(machine, 16, 20, 21) == [0, 1, 0]
    machine.commands.devices_write({"lights": [False, False, True], "lamp": True, "bar": [0.25, 0.5]})
    assert levels(machine, 16, 20, 21, 17, 8, 9) == [0, 0, 1, 1, 0.25, 0.5]
    machine.commands.led_blink("lights", 60, 60)
    assert set(machine.commands.devices_state("lights")) == {"lights.red", "lights.amber", "lights.green"}
    assert all(state["effect"] == "blink" for state in machine.commands.devices_state("lights").values())
    assert machine.commands.lease_acquire(["lights", "base"]) == 60
    machine.commands.lease_release(["lights"])
    machine.commands.device_rest("lights")
    assert levels(machine, 16, 20, 21) == [0, 0, 0]
    assert machine.commands.led_fade("bar", 0.75, 0.0) == 0.0
    assert levels(machine, 8, 9) == [0.75, 0.75]
    with pytest.raises(BadArguments, match="lights takes a list of 3 values"):
        machine.commands.devices_write({"lights": True})


def test_a_group_is_listed_and_its_lights_are_devices(machine: Bench) -> None:
    listed = {row["name"]: row for row in machine.commands.devices_list()}
    assert listed["lights"]["members"] == ["lights.red", "lights.amber", "lights.green"]
    assert listed["lights"]["role"] == "group"
    assert listed["bar.left"]["type"] == "PWMLED"
    assert listed["lights.red"]["lease"] == 60.0
    assert read({"devices": {"bar": {"type": "LEDBoard", "pins": [3, "BOARD11"]}}}).groups["bar"] == Group(
        "bar", "LEDBoard", "hardware", ("bar.0", "bar.1")
    )


def test_a_policy_names_the_group_or_its_lights(machine: Bench) -> None:
    rights = {"car": policy.Entry(devices=("lights",)), "lamp": policy.Entry(devices=("bar.*",))}
    set_policy(policy.Policy(rights))
    set_origin(Origin("car", b"1", b"car"))
    machine.commands.led_on("lights")
    with pytest.raises(NotAllowed):
        machine.commands.led_off("lights.red")
    with pytest.raises(NotAllowed):
        machine.commands.devices_state("bar")
    set_origin(Origin("lamp", b"1", b"lamp"))
    machine.commands.led_on("bar.left")
    with pytest.raises(NotAllowed):
        machine.commands.device_rest("lights")


@pytest.mark.parametrize(
    ("entry", "path", "reason"),
    [
        ({"type": "TrafficLights", "red": 5, "amber": 6}, [], "TrafficLights need green, once"),
        ({"type": "TrafficLights", "red": 5, "amber": 6, "yellow": 7, "green": 8}, [], "amber or yellow, once"),
        ({"type": "TrafficLights", "red": 5, "amber": 66, "green": 8}, ["amber"], "there is no pin 66"),
        ({"type": "LEDBoard"}, [], "an LEDBoard needs pins"),
        ({"type": "LEDBoard", "pins": []}, ["pins"], "an LEDBoard needs pins"),
        ({"type": "LEDBoard", "pins": {"a.b": 5}}, ["pins", "a.b"], "a light's name"),
        ({"type": "LEDBoard", "pins": {"a": 99}}, ["pins", "a"], "there is no pin 99"),
        ({"type": "LEDBoard", "pins": [5, 5]}, ["pins"], "GPIO5 is x.0's already"),
        ({"type": "LEDBoard", "pins": [5], "pwm": 1}, ["pwm"], "expected true or false"),
        ({"type": "LEDBoard", "pins": [5], "lease": 0}, ["lease"], "expected a number from 0.05"),
        ({"type": "LEDBoard", "pins": [5], "bounce": 0}, ["bounce"], "a LED has no such key"),
    ],
)
def test_a_mistake_in_a_group_names_its_key(entry: dict[str, Any], path: list[str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        read({"devices": {"x": entry}})
    assert caught.value.path == ["hardware", "devices", "x", *path]


def test_a_device_is_not_named_like_a_light_of_a_group() -> None:
    with pytest.raises(SettingsError, match="a device's name is a letter"):
        read({"devices": {"a.b": {"type": "LED", "pin": 5}}})
    with pytest.raises(SettingsError, match="expected at most 64 devices, not 65"):
        read({"devices": {"x": {"type": "LEDBoard", "pins": [1] * 65}}})


def test_the_router_brings_a_group_to_rest_past_its_lane() -> None:
    machine = Machine({"devices": DEVICES}, "mock")
    machine.share()
    assert machine.rest("device.rest", "lights", 7, 1)
    panel, layout = machine._panel, read({"devices": DEVICES})
    assert [panel.rested(layout.devices[name].place) for name in layout.members("lights")] == [(7, 1)] * 3
    assert panel.rested(layout.devices["lamp"].place) == (0, 0)
    assert not machine.rest("device.rest", "button", 7, 1)
    assert not machine.rest("device.rest", "nothing", 7, 1)


# Robots, tones, buttons -----------------------------------------------------------------------------------------------


def test_a_robot_drives_as_gpiozeros(machine: Bench) -> None:
    commands = machine.commands
    cases: list[tuple[Callable[..., object], dict[str, float], list[float]]] = [
        (commands.robot_forward, {}, [1, 0, 1, 0]),
        (commands.robot_forward, {"speed": 0.5, "curve_left": 0.5}, [0.25, 0, 0.5, 0]),
        (commands.robot_backward, {"speed": 0.5, "curve_right": 1}, [0, 0.5, 0, 0]),
        (commands.robot_left, {"speed": 0.5}, [0, 0.5, 0.5, 0]),
        (commands.robot_right, {}, [1, 0, 0, 1]),
    ]
    for drive, arguments, pins in cases:
        drive("base", **arguments)
        assert levels(machine, 10, 11, 12, 13) == pins
    commands.robot_stop("base")
    assert levels(machine, 10, 11, 12, 13) == [0, 0, 0, 0]
    with pytest.raises(BadArguments, match="either curve_left or curve_right"):
        commands.robot_forward("base", 1, 0.5, 0.5)
    with pytest.raises(BadArguments, match="a curve from 0 to 1"):
        commands.robot_forward("base", 1, 2)
    with pytest.raises(BadArguments, match="a speed from 0 to 1"):
        commands.robot_left("base", -1)


@pytest.mark.parametrize("note", ["A4", "C#5", "Db5", "G♯4", "B♭3", "C♮4", "C0", "B9", "E9"])
def test_a_note_has_the_frequency_of_gpiozeros(note: str) -> None:
    if note[0] + note[-1] in ("B9",):
        assert frequency_of(note) == pytest.approx(15804.27, abs=0.01)  # gpiozero ends at the notes of MIDI
    else:
        assert frequency_of(note) == pytest.approx(float(gpiozero.tones.Tone.from_note(note)))


def test_a_tone_is_played_by_its_note(machine: Bench) -> None:
    machine.commands.tone_play("horn", "C5")
    assert machine.owner.control.find("horn").value == pytest.approx(523.25, abs=0.01)
    for note in ("H4", "a4", "A", "A44", ""):
        with pytest.raises(BadArguments, match="a note is a letter"):
            machine.commands.tone_play("horn", note)
    with pytest.raises(BadArguments, match="horn takes a frequency in Hz"):
        machine.commands.tone_play("horn", "C7")


def test_a_held_button_says_so_again_and_again(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    lock, is_full = threading.Lock(), [True]

    def publish(topic: str, value: Any) -> None:
        with lock:
            if topic == "hardware.button" and "held" in value:
                if is_full:
                    is_full.clear()
                    raise Overloaded("full")
                told.append(value)

    monkeypatch.setattr(owners, "publish_owned", publish)
    machine = bench({"button": DEVICES["button"], "plain": {"type": "Button", "pin": 26}})
    machine.pin(27).drive_low()
    wait_until(lambda: len(told) >= 3, 5, "three holds, of which the first was not published at once")
    assert machine.commands.devices_state("button")["button"]["held"] >= told[2]["held"]
    assert [held["value"] for held in told[:3]] == [1, 1, 1]
    assert 0.049 <= told[0]["held"] < deadline(0.5)
    assert told[0]["held"] < told[1]["held"] < told[2]["held"]
    assert told[0]["time"] <= time.monotonic()
    machine.pin(27).drive_high()
    wait_until(lambda: machine.commands.devices_state("button")["button"]["held"] == 0, 5, "the release")
    assert "held" not in machine.commands.devices_state("plain")["plain"]


def test_options_of_a_held_button_fit_together() -> None:
    button = {"type": "Button", "pin": 5}
    with pytest.raises(SettingsError, match="hold_repeat needs hold_time"):
        read({"devices": {"b": {**button, "hold_repeat": True}}})
    with pytest.raises(SettingsError, match="publishes no events"):
        read({"devices": {"b": {**button, "hold_time": 1, "batch": 5}}})
