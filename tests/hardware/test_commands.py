"""The tasks as a worker runs them, on mock pins, in this process."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import taskengine_hardware
from taskengine import BadArguments, Cancelled, NotAllowed, Origin, Overloaded, SettingsError
from taskengine.config import policy
from taskengine.worker.context import set_origin, set_policy
from taskengine_hardware.control import Control
from taskengine_hardware.device_types import KINDS, Role
from tests.engine import wait_until
from tests.hardware.conftest import Bench

LONG = {"lease": 60}
DEVICES: dict[str, Any] = {
    "pan": {"type": "AngularServo", "pin": 18, **LONG},
    "tilt": {"type": "Servo", "pin": 19, **LONG},
    "lamp": {"type": "LED", "pin": 17},
    "glow": {"type": "PWMLED", "pin": 4},
    "eye": {"type": "RGBLED", "red": 5, "green": 6, "blue": 7},
    "fan": {"type": "Motor", "forward": 8, "backward": 9, **LONG},
    "base": {"type": "Robot", "left": [10, 11], "right": [12, 13], **LONG},
    "horn": {"type": "TonalBuzzer", "pin": 14},
    "stepped": {"type": "Motor", "forward": 20, "backward": 21, "pwm": False, **LONG},
    "button": {"type": "Button", "pin": 27, "rate": 1000},
    "load": {"type": "LoadAverage"},
}


@pytest.fixture
def machine(bench: Callable[..., Bench]) -> Bench:
    return bench(DEVICES)


def pulse_ms(machine: Bench, number: int) -> float:
    return float(machine.pin(number).state) * 20


def test_a_servo_reaches_its_pulse_width(machine: Bench) -> None:
    for value, milliseconds in ((-1, 1.0), (0, 1.5), (0.5, 1.75), (1, 2.0)):
        machine.commands.servo_set("tilt", value)
        assert pulse_ms(machine, 19) == pytest.approx(milliseconds)
        machine.commands.servo_set("pan", value)
        assert pulse_ms(machine, 18) == pytest.approx(milliseconds)
        machine.commands.servo_set("pan", angle=90 * value)
        assert pulse_ms(machine, 18) == pytest.approx(milliseconds)
    machine.commands.servo_detach("tilt")
    assert machine.pin(19).state == 0
    assert machine.pin(19).frequency is None


@pytest.mark.parametrize(
    ("name", "args", "pins"),
    [
        ("gpio_write", ("lamp", True), {17: 1}),
        ("pwm_set", ("glow", 0.3), {4: 0.3}),
        ("colour_set", ("eye", 1, 0.5, 0), {5: 1, 6: 0.5, 7: 0}),
        ("motor_forward", ("fan",), {8: 1, 9: 0}),
        ("motor_backward", ("fan", 0.25), {8: 0, 9: 0.25}),
        ("robot_drive", ("base", 0.5, -1), {10: 0.5, 11: 0, 12: 0, 13: 1}),
        ("devices_write", ({"lamp": True, "pan": 45, "base": [1, 1]},), {17: 1, 18: 0.0875, 10: 1, 12: 1}),
    ],
)
def test_a_command_reaches_its_pins(machine: Bench, name: str, args: tuple[Any, ...], pins: dict[int, float]) -> None:
    assert getattr(machine.commands, name)(*args) is None
    assert {pin: pytest.approx(float(machine.pin(pin).state)) for pin in pins} == pins


def test_toggling_and_stopping(machine: Bench) -> None:
    assert [machine.commands.gpio_toggle("lamp") for _ in range(3)] == [True, False, True]
    assert machine.commands.gpio_read("lamp") is True
    machine.commands.motor_forward("fan")
    machine.commands.robot_drive("base", 1, 1)
    machine.commands.motor_stop("fan")
    machine.commands.motor_stop("base")
    assert [machine.pin(pin).state for pin in (8, 10, 12)] == [0, 0, 0]
    machine.commands.robot_drive("base", 1, 1)
    machine.commands.robot_stop("base")
    machine.commands.motor_forward("stepped")
    machine.commands.device_rest("stepped")
    machine.commands.device_rest("lamp")
    assert [machine.pin(pin).state for pin in (10, 12, 20, 17)] == [0, 0, 0, 0]


def test_a_pulse_ends_by_itself(machine: Bench) -> None:
    machine.commands.gpio_pulse("lamp", 0.01)
    machine.commands.tone_play("horn", 440, 0.01)
    wait_until(lambda: machine.owner.control.find("lamp").value is False, 5, "the end of the pulse")
    wait_until(lambda: machine.owner.control.find("horn").value is None, 5, "the end of the tone")
    assert [state.state for state in machine.pin(17).states if state.state] == [1.0]


def test_a_move_answers_at_once_and_arrives(machine: Bench) -> None:
    machine.commands.servo_set("pan", angle=0)
    assert machine.commands.servo_move("pan", 45, 0.1) == 0.1
    wait_until(lambda: machine.owner.control.find("pan").value == 45, 5, "the end of the move")
    machine.commands.servo_set("tilt", 0)
    assert machine.commands.servo_move("tilt", 1, 0.05, "linear") == 0.05
    wait_until(lambda: machine.owner.control.find("tilt").value == 1, 5, "the end of the move")
    steps = [state.state for state in machine.pin(18).states if state.state > 0.074]
    assert steps == sorted(steps)
    assert len(steps) >= 3


def test_a_sweep_goes_on_until_it_is_halted(machine: Bench) -> None:
    machine.commands.servo_sweep("pan", -10, 10, 0.05)
    wait_until(lambda: len(machine.pin(18).states) > 10, 5, "some steps")
    machine.commands.servo_halt("pan")
    told = len(machine.pin(18).states)
    with machine.owner.lock:
        machine.owner.control.tick(time.monotonic())
    assert len(machine.pin(18).states) == told


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("servo_set", ("pan",), "needs a value, or an angle"),
        ("servo_set", ("pan", 2), "from -1 to 1, not 2"),
        ("servo_set", ("pan", None, 91), "from -90 to 90, not 91"),
        ("servo_set", ("pan", 0, 0), "either a value or an angle"),
        ("servo_set", ("tilt", None, 5), "has no angles"),
        ("servo_set", ("tilt", float("nan")), "from -1 to 1, not nan"),
        ("servo_set", ("tilt", "0"), "from -1 to 1, not '0'"),
        ("servo_set", ("tilt", True), "from -1 to 1, not True"),
        ("servo_set", ("pan", True), "from -1 to 1, not True"),
        ("servo_set", ("pan", None, True), "from -90 to 90, not True"),
        ("servo_set", ("tilt", float("inf")), "from -1 to 1, not inf"),
        ("servo_set", ("lamp", 0), "lamp is a LED, not a servo"),
        ("servo_set", ("button", 0), "no output is named 'button'; devices.list shows"),
        ("servo_set", (["pan"], 0), "no output is named"),
        ("gpio_write", ("lamp", 0.5), "true or false, not 0.5"),
        ("gpio_write", ("lamp", 1), "true or false, not 1"),
        ("gpio_write", ("lamp", [False]), "true or false, not [False]"),
        ("gpio_write", ("lamp", None), "true or false, not None"),
        ("gpio_write", ("lamp", "off"), "true or false, not 'off'"),
        ("gpio_pulse", ("lamp", True), "from 0.001 to 86400"),
        ("gpio_pulse", ("lamp", 0), "from 0.001 to 86400"),
        ("pwm_set", ("glow", 1.1), "a duty cycle from 0 to 1"),
        ("colour_set", ("eye", 1, 1, 2), "three numbers from 0 to 1"),
        ("pwm_set", ("glow", True), "a duty cycle from 0 to 1"),
        ("pwm_set", ("glow", [0.5]), "a duty cycle from 0 to 1"),
        ("colour_set", ("eye", True, 0, 0), "three numbers from 0 to 1"),
        ("motor_forward", ("fan", -0.5), "a speed from 0 to 1"),
        ("motor_forward", ("fan", True), "a speed from 0 to 1"),
        ("motor_forward", ("stepped", 0.5), "takes -1, 0 or 1, not 0.5"),
        ("devices_write", ({"lamp": True, "stepped": 0.5},), "takes -1, 0 or 1, not 0.5"),
        ("devices_write", ({"lamp": [0]},), "true or false, not [0]"),
        ("devices_write", ({"lamp": True, "base": [True, 1]},), "two speeds from -1 to 1"),
        ("robot_drive", ("base", 1, None), "two speeds from -1 to 1"),
        ("tone_play", ("horn", 20), "from 220 to 880"),
        ("tone_play", ("horn", 440, -1), "from 0.001 to 86400"),
        ("servo_move", ("pan",), "needs an angle"),
        ("servo_sweep", ("pan", 0, 10, 1, 0), "cycles"),
        ("servo_sweep", ("pan", 0, 10, 1, True), "cycles"),
        ("servo_move", ("pan", 0, 1, ["sine"]), "an easing is one of"),
        ("servo_sweep", ("pan", 0, 100), "from -90 to 90"),
        ("devices_write", ({},), "a map of devices"),
        ("devices_write", ({"lamp": True, "pan": 1e9},), "from -90 to 90"),
        ("lease_acquire", (["lamp"],), "has no lease"),
        ("lease_renew", ([],), "a list of devices"),
        ("lease_release", ("pan",), "a list of devices"),
        ("lease_acquire", (["pan"], 1), "exclusive and take_over are true or false"),
        ("system_arm", (True,), "a stop is a whole number"),
        ("system_arm", ("1",), "a stop is a whole number"),
        ("device_rest", ("button",), "no output is named"),
        ("robot_stop", ("fan",), "fan is a Motor, not a drive"),
        ("sensor_read", ("nose",), "no output is named 'nose'"),
    ],
)
def test_bad_input_is_named_and_moves_nothing(machine: Bench, name: str, args: tuple[Any, ...], text: str) -> None:
    before = {pin: list(machine.pin(pin).states) for pin in range(4, 22)}
    with pytest.raises(BadArguments, match=re.escape(text)):
        getattr(machine.commands, name)(*args)
    assert {pin: list(machine.pin(pin).states) for pin in range(4, 22)} == before


def test_devices_that_are_written_together_wait_for_nobody_between(machine: Bench) -> None:
    """Sixteen or so in one task are one frame: all are refused, or all move."""
    machine.commands.lease_acquire(["tilt"], exclusive=True)
    set_origin(Origin(connection=b"another", holder=b"another"))
    with pytest.raises(NotAllowed, match="another client holds tilt"):
        machine.commands.devices_write({"pan": 10, "tilt": 0.5})
    assert machine.owner.control.find("pan").value is None
    set_origin(Origin())
    machine.commands.devices_write({"pan": 10, "tilt": 0.5})
    assert machine.owner.control.find("tilt").value == 0.5


def test_stopping(machine: Bench) -> None:
    machine.commands.servo_set("pan", 0.5)
    machine.commands.robot_drive("base", 1, 1)
    machine.commands.system_stop()
    assert machine.pin(18).frequency is None
    assert [machine.pin(pin).state for pin in (18, 10, 12)] == [0, 0, 0]
    with pytest.raises(NotAllowed, match=r"system\.arm"):
        machine.commands.servo_set("pan", 0)
    machine.commands.system_stop()
    machine.commands.system_arm()
    machine.commands.servo_set("pan", 0)


def test_a_stop_is_known_by_its_id_and_undone_by_its_number(machine: Bench) -> None:
    commands = machine.commands
    machine.commands.system_stop(id=b"1", why="a finger")
    state = commands.system_state()
    assert {key: state[key] for key in ("armed", "stop", "by", "why")} == {
        "armed": False,
        "stop": 1,
        "by": "",
        "why": "a finger",
    }
    assert 0 <= time.monotonic() - state["since"] < 60
    lane = state["lanes"]["hardware"]
    assert (lane["generation"], lane["faults"], lane["refused"]) == (1, 0, 0)
    with pytest.raises(NotAllowed, match="names stop 2, but the latest is 1"):
        commands.system_arm(2)
    commands.system_arm(1)
    commands.system_stop(id=b"1")
    assert commands.system_state()["armed"]
    no_text: Any = 5
    commands.system_stop(id=b"2", why=no_text)
    assert commands.system_state()["stop"] == 2
    commands.system_stop()
    assert commands.system_state()["stop"] == 3


def test_a_stop_that_has_waited_does_not_undo_an_arm(machine: Bench) -> None:
    """The router has stopped the machine as it came. One that a task calls itself is another one."""
    received = time.monotonic_ns()
    set_origin(Origin("a", b"a", b"a", received, received))
    machine.panel.stop(time.monotonic_ns())
    machine.commands.system_arm(1)
    machine.commands.stop_called()
    assert machine.commands.system_state()["armed"]
    machine.commands.system_stop()
    assert not machine.commands.system_state()["armed"]
    machine.commands.system_arm(2)
    set_origin(Origin("a", b"a", b"a", time.monotonic_ns(), 0))
    machine.commands.stop_called(why="now")
    assert machine.commands.system_state()["why"] == "now"
    assert machine.commands.system_state()["by"] == "a"


def test_stops_and_rests_overtake_what_waits() -> None:
    layout = taskengine_hardware.read(
        {"devices": {"x": {"type": "Motor", "forward": 4, "backward": 5, "lane": "legs"}}}
    )
    traits = {spec["name"]: spec for _, spec in taskengine_hardware.tasks(layout)}
    urgent = {name for name, spec in traits.items() if spec["urgent"]}
    assert urgent == taskengine_hardware.stop_tasks(layout) | taskengine_hardware.rest_tasks(layout).keys()
    assert all(traits[name]["idempotent"] for name in urgent)
    assert traits["legs.system.state"]["idempotent"]
    assert not traits["legs.system.arm"]["idempotent"]


def test_anothers_motion_is_brought_to_rest_by_who_may_use_the_device(machine: Bench) -> None:
    now = time.monotonic_ns()
    set_origin(Origin("a", b"a", b"a", now, now))
    machine.commands.lease_acquire(["fan"], exclusive=True)
    machine.commands.motor_forward("fan")
    set_origin(Origin("b", b"b", b"b", time.monotonic_ns(), 0))
    machine.commands.motor_stop("fan")
    assert machine.pin(8).state == 0
    set_origin(Origin("a", b"a", b"a", now, now))
    with pytest.raises(Cancelled):
        machine.commands.motor_forward("fan")


def test_a_rest_is_heeded_while_a_task_hangs(machine: Bench) -> None:
    """As the router asks for it when the call comes."""
    machine.commands.motor_forward("fan")
    machine.panel.rest("hardware", machine.owner.control.find("fan").place, time.monotonic_ns(), 0)
    wait_until(lambda: machine.pin(8).state == 0, 5, "rest")


def test_a_device_is_written_with_others_or_none_is(machine: Bench) -> None:
    """A write that fails at the second device does not renew the first one's lease, or turn it on."""
    machine.commands.motor_forward("fan", 0.5)
    end = machine.panel.ends[machine.owner.control.find("fan").place]
    with pytest.raises(BadArguments):
        machine.commands.devices_write({"lamp": True, "fan": 0.25, "stepped": 0.5})
    assert machine.owner.control.find("lamp").value is False
    assert machine.panel.ends[machine.owner.control.find("fan").place] == end


def test_where_a_servo_stands_that_nobody_has_told(bench: Callable[..., Bench]) -> None:
    limits = {"limits": {"speed": 1.0}, **LONG}
    machine = bench(
        {
            "lost": {"type": "Servo", "pin": 18, **limits},
            "homed": {"type": "Servo", "pin": 19, "home": 0.5, **limits},
            "quick": {"type": "Servo", "pin": 4, **LONG},
        }
    )
    state = machine.commands.devices_state()
    assert [state[name].get("position") for name in ("lost", "homed", "quick")] == ["unknown", "assumed", None]
    machine.commands.servo_set("lost", 0)
    assert "position" not in machine.commands.devices_state("lost")["lost"]
    machine.commands.servo_detach("lost")
    assert machine.commands.devices_state("lost")["lost"]["position"] == "unknown"


def test_state_and_list(machine: Bench) -> None:
    machine.commands.servo_set("pan", angle=12)
    state = machine.commands.devices_state()
    assert state.keys() == DEVICES.keys()
    assert state["pan"]["value"] == 12
    assert 59 < state["pan"]["lease"] <= 60
    began = state["tilt"].pop("time")
    assert state["tilt"] == {"value": None, "source": "owner", "lease": None}
    assert began <= state["pan"]["time"] <= time.monotonic()
    assert machine.commands.devices_state("lamp") == {"lamp": {"value": False, "source": "owner", "time": began}}
    described = {device["name"]: device for device in machine.commands.devices_list()}
    assert described["pan"] == {
        "name": "pan",
        "type": "AngularServo",
        "role": "servo",
        "pins": {"pin": 18},
        "unit": "degrees",
        "lease": 60.0,
        "safe": "detach",
        "stop": "cut",
        "limits": {"range": [-90, 90]},
    }
    assert described["button"]["role"] == "input"


def test_a_button_is_read_and_told(machine: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []
    monkeypatch.setattr("taskengine_hardware.owner.publish_owned", lambda topic, value: told.append((topic, value)))
    assert machine.commands.gpio_read("button") == 0
    machine.pin(27).drive_low()
    assert machine.commands.gpio_read("button") == 1
    machine.pin(27).drive_high()
    values = [value["value"] for topic, value in told if topic == "hardware.button"]
    assert values[-2:] == [1, 0]
    times = [value["time"] for topic, value in told]
    assert all(abs(time.monotonic() - moment) < 60 for moment in times)
    machine.commands.servo_set("pan", angle=5)
    wait_until(lambda: ("hardware.pan", 5.0) in [(topic, value["value"]) for topic, value in told], 5, "a publication")


def test_a_fast_input_is_told_in_batches(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("taskengine_hardware.owner.publish_owned", lambda topic, value: told.append(value))
    bench({"volts": {"type": "MCP3008", "channel": 0, "rate": 1000, "batch": 50}})
    wait_until(lambda: len(told) >= 2, 10, "two batches")
    assert told[0].shape == (50, 2)
    assert list(told[0][:, 0]) == sorted(told[0][:, 0])


def test_an_input_may_be_told_at_its_rate(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("taskengine_hardware.owner.publish_owned", lambda topic, value: told.append(value["value"]))
    bench({"still": {"type": "Button", "pin": 27, "rate": 500, "always": True}})
    wait_until(lambda: len(told) >= 5, 10, "five samples")
    assert told[:5] == [0] * 5


def test_what_a_policy_does_not_allow_moves_nothing(machine: Bench) -> None:
    set_policy(policy.Policy({"laptop": policy.Entry(devices=("pan",)), "tablet": policy.Entry()}))
    set_origin(Origin("laptop", b"1", b"1"))
    machine.commands.servo_set("pan", 0.5)
    assert machine.commands.devices_state().keys() == {"pan"}
    refusals: list[Callable[[], object]] = [
        lambda: machine.commands.servo_set("tilt", 0),
        lambda: machine.commands.devices_write({"pan": 0, "lamp": True}),
        lambda: machine.commands.lease_acquire(["tilt"]),
        lambda: machine.commands.sensor_read("button"),
        lambda: machine.commands.servo_halt("tilt"),
    ]
    for refused in refusals:
        with pytest.raises(NotAllowed, match="policy does not let client 'laptop' use device"):
            refused()
    assert machine.owner.control.find("pan").value == 45


def test_a_command_whose_pin_fails_ends_in_its_error_and_the_lease_ends_too(bench: Callable[..., Bench]) -> None:
    machine = bench({"pan": {"type": "Servo", "pin": 18, "lease": 0.05}})
    output = machine.owner.control.find("pan")
    driven: list[object] = []

    def drive(value: object) -> None:
        driven.append(value)
        if value is not None:
            raise OSError("the pin is gone")

    output.write = drive
    with pytest.raises(OSError, match="the pin is gone"):
        machine.commands.servo_set("pan", 0)
    wait_until(lambda: driven[-1] is None, 5, "the end of the lease")


def test_a_batch_needs_numpy(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(SettingsError, match=r"volts\.batch: an input with a batch needs numpy"):
        bench({"volts": {"type": "MCP3008", "channel": 0, "batch": 50}})


def test_a_button_is_told_again_until_it_is_taken(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def publish(topic: str, value: Any) -> None:
        told.append(value["value"])
        if len(told) < 4:
            raise Overloaded("nobody takes it", retry_after=None)

    monkeypatch.setattr("taskengine_hardware.owner.publish_owned", publish)
    bench({"button": {"type": "Button", "pin": 27, "rate": 500}})
    wait_until(lambda: len(told) >= 4, 5, "a fourth attempt")
    assert told == [0, 0, 0, 0]


def test_a_lease_that_ends_is_seen_to_while_a_task_hangs(bench: Callable[..., Bench]) -> None:
    machine = bench({"pan": {"type": "Servo", "pin": 18, "lease": 0.05}})
    machine.commands.servo_set("pan", 0)
    wait_until(lambda: machine.pin(18).frequency is None, 5, "the end of the lease")  # nobody calls anything


def test_an_owner_that_cannot_drive_ends_itself(machine: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        ended.set()

    def fail(control: Control, now: float) -> None:
        raise OSError("the pin is gone")

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr(Control, "tick", fail)
    machine.owner._surely(machine.owner.control.tick)
    assert ended.is_set()
    assert codes == [1]
    assert machine.said == ["[HARDWARE] an output fails: OSError: the pin is gone"]


def test_closing_makes_safe_and_may_be_done_twice(machine: Bench) -> None:
    machine.commands.servo_set("pan", 0.5)
    machine.commands.gpio_write("lamp", True)
    pins = [machine.pin(18), machine.pin(17)]
    machine.owner.close()
    machine.owner.close()
    assert [pin.function for pin in pins] == ["input", "input"]
    assert [pin.state for pin in pins] == [0, 0]


def test_every_role_has_a_command_and_every_task_a_text() -> None:
    from taskengine_hardware.commands import NAMES

    assert len(NAMES) == 40
    assert all(method.__doc__ for method in NAMES.values())
    assert {kind.role.value for kind in KINDS.values()} == {role.value for role in Role}
