"""Inputs that cannot be measured have no value and a reason; others say when their value was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpiozero.pins.mock import MockFactory, MockPin, MockSPIDevice, MockTriggerPin

import taskengine_hardware
from taskengine import Overloaded, TaskFailed
from taskengine_hardware import SharedState
from taskengine_hardware.backends import BACKENDS
from taskengine_hardware.device_config import LANE
from taskengine_hardware.device_types import KINDS
from taskengine_hardware.owner import Owner
from taskengine_hardware.plausibility import Measurement
from taskengine_hardware.sensors import Sensor
from tests.engine import deadline, wait_until
from tests.hardware.conftest import Bench, Table

Told = list[tuple[str, Any]]
NOSE = {"type": "DistanceSensor", "echo": 4, "trigger": 5, "queue_len": 9}
METRES_A_SECOND = 343.26


class Sonar(MockTriggerPin):  # type: ignore[misc]  # gpiozero has no types
    """A trigger whose echo comes back, as long as it is connected."""

    is_connected = True

    def _set_state(self, value: float) -> None:
        if self.is_connected:
            super()._set_state(value)
        else:
            MockPin._set_state(self, value)


class Chip(MockSPIDevice):  # type: ignore[misc]
    """A converter that always answers the same: ones, a zero at the null bit, and what follows it."""

    def __init__(self, factory: Any, clocks: int, null_bit: int, answer: int) -> None:
        super().__init__(11, 10, 9, 8, pin_factory=factory)
        self._bits = [1 if bit > null_bit else answer >> bit & 1 for bit in reversed(range(clocks))]

    def on_start(self) -> None:
        super().on_start()
        self.tx_buf = list(self._bits)


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Mock pins without pulses, among which a test puts others."""
    factory = MockFactory(revision="a020d3", pin_class=MockPin)
    monkeypatch.setitem(BACKENDS, "mock", lambda layout: factory)
    return factory


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Return the publications."""
    told: Told = []
    monkeypatch.setattr("taskengine_hardware.owner.publish_owned", lambda topic, value: told.append((topic, value)))
    return told


def of(told: Told, name: str) -> list[dict[str, Any]]:
    return [value for topic, value in list(told) if topic == f"hardware.{name}"]


def state_of(one: Bench, name: str) -> dict[str, Any]:
    state: dict[str, Any] = one.commands.devices_state()[name]
    return state


def sonar(factory: Any, metres: float) -> Sonar:
    pin: Sonar = factory.pin(5, pin_class=Sonar, echo_pin=factory.pin(4), echo_time=2 * metres / METRES_A_SECOND)
    return pin


def test_a_distance_without_an_echo_is_no_distance(factory: Any, told: Told, bench: Callable[..., Bench]) -> None:
    sonar(factory, 0.5).is_connected = False
    one = bench({"nose": NOSE})
    wait_until(lambda: of(told, "nose"), 5, "a publication")
    first = of(told, "nose")[0]
    assert (first["value"], first["reason"]) == (None, "no echo")
    state = state_of(one, "nose")
    assert (state["value"], state["reason"]) == (None, "no echo")
    with pytest.raises(TaskFailed, match="nose has no value: no echo"):
        one.commands.sensor_read("nose")
    assert one.said == ["[HARDWARE] nose fails: no echo"]


def test_a_distance_that_lost_its_echo_is_told_within_three_periods(
    factory: Any, told: Told, bench: Callable[..., Bench]
) -> None:
    trigger = sonar(factory, 0.8)
    one = bench({"nose": NOSE | {"rate": 5}})

    def state() -> dict[str, Any]:
        return state_of(one, "nose")

    wait_until(lambda: state()["value"] is not None, 5, "an echo")
    assert 0.8 <= one.commands.sensor_read("nose") <= 1.0
    wait_until(lambda: time.monotonic() - state()["time"] < 0.15, 5, "a fresh reading")
    trigger.is_connected = False
    lost = time.monotonic()
    wait_until(lambda: state()["value"] is None, 5, "the loss")
    gone = of(told, "nose")[-1]
    assert gone.keys() == state().keys()
    assert (gone["value"], gone["reason"], state()["reason"]) == (None, "no echo", "no echo")
    assert gone["time"] - lost < deadline(3 / 5 + 0.2)
    # and nothing of what was before is told when it comes back
    near = min(value["value"] for value in of(told, "nose") if value["value"] is not None)
    trigger.echo_time = 2 * 0.01 / METRES_A_SECOND
    trigger.is_connected = True
    wait_until(lambda: state()["value"] is not None, 5, "the echo again")
    assert "reason" not in state()
    assert of(told, "nose")[-1]["value"] < near


def test_a_reading_carries_when_it_was_measured(factory: Any, told: Told, bench: Callable[..., Bench]) -> None:
    """It is read 50 times a second, and measured 2 times."""
    one = bench({"line": {"type": "LineSensor", "pin": 4, "sample_rate": 2, "rate": 50, "always": True}})
    wait_until(lambda: len(of(told, "line")) > 60, 10, "some publications")
    times = [value["time"] for value in of(told, "line")]
    assert times == sorted(times)
    assert len(set(times)) < len(times) / 3
    assert one.commands.sensor_read("line") in (0, 1)


def test_a_thread_of_gpiozero_outlives_an_error(factory: Any, told: Told, bench: Callable[..., Bench]) -> None:
    one = bench({"line": {"type": "LineSensor", "pin": 4, "sample_rate": 100, "rate": 20}})

    def state() -> dict[str, Any]:
        return state_of(one, "line")

    wait_until(lambda: state()["value"] == 0, 5, "a value")
    probe: Any = one.owner.sensors.known["line"]._probe
    works, probe._measure = probe._measure, _fail
    wait_until(lambda: state()["value"] is None, 5, "the failure")
    assert state()["reason"] == "OSError: unplugged"
    probe._measure = works
    wait_until(lambda: state()["value"] == 0, 5, "the value again")


def _fail() -> None:
    raise OSError("unplugged")


def test_what_cannot_be_read_has_no_value_until_it_can(tmp_path: Path, told: Told, bench: Callable[..., Bench]) -> None:
    file = tmp_path / "temp"
    file.write_text("42000\n")
    one = bench({"cpu": {"type": "CPUTemperature", "sensor_file": str(file), "rate": 50}})
    wait_until(lambda: state_of(one, "cpu")["value"] == 42.0, 5, "a value")
    file.unlink()
    wait_until(lambda: state_of(one, "cpu")["value"] is None, 5, "the loss")
    assert state_of(one, "cpu")["reason"].startswith("FileNotFoundError: ")
    assert of(told, "cpu")[-1]["value"] is None
    with pytest.raises(TaskFailed, match="cpu has no value: FileNotFoundError"):
        one.commands.sensor_read("cpu")
    new = tmp_path / "new"
    new.write_text("43000\n")
    new.rename(file)  # so that nobody finds it empty
    wait_until(lambda: state_of(one, "cpu").get("value") == 43.0, 5, "the value again")
    assert of(told, "cpu")[-1].keys() == {"time", "value"}
    assert len([line for line in one.said if "cpu fails" in line]) == 1


def test_an_input_that_hangs_keeps_no_other_from_being_read(
    tmp_path: Path, told: Told, bench: Callable[..., Bench]
) -> None:
    hung, file = tmp_path / "hung", tmp_path / "load"
    os.mkfifo(file)
    load = {"type": "LoadAverage", "rate": 50, "always": True}
    one = bench({"stuck": load | {"load_average_file": str(file)}, "load": load})
    wait_until(lambda: of(told, "stuck"), 5, "the hung one")
    state = one.commands.devices_state()
    assert (state["stuck"]["value"], state["stuck"]["reason"]) == (None, "not read within 0.2 s")
    assert of(told, "stuck")[-1]["reason"] == "not read within 0.2 s"
    # the other one is as fresh as ever
    assert state["load"]["value"] is not None
    seen = len(of(told, "load"))
    wait_until(lambda: len(of(told, "load")) > seen + 5, 5, "the other one")
    assert time.monotonic() - of(told, "load")[-1]["time"] < deadline(1.0)
    before = time.monotonic()
    with pytest.raises(TaskFailed, match="stuck has no value: not read within"):
        one.commands.sensor_read("stuck")
    assert time.monotonic() - before < deadline(1.0)
    # what comes late was measured nobody knows when, and is read once more
    os.rename(file, hung)
    file.write_text("1.5 1.5 1.5 1/1 1\n")
    hung.write_text("9.9 9.9 9.9 1/1 1\n")
    wait_until(lambda: state_of(one, "stuck")["value"] == 1.5, 5, "the value")
    assert 9.9 not in [value["value"] for value in of(told, "stuck")]


def test_many_askers_of_what_hangs_leave_nothing_behind(tmp_path: Path, bench: Callable[..., Bench]) -> None:
    file = tmp_path / "load"
    os.mkfifo(file)
    one = bench({"stuck": {"type": "LoadAverage", "load_average_file": str(file), "rate": 1}})
    for _ in range(2):
        with pytest.raises(TaskFailed, match="not read within"):
            one.commands.sensor_read("stuck")
    sensor = one.owner.sensors.known["stuck"]
    wait_until(lambda: sensor.state().reason == "not read within 2 s", 10, "the hung one")
    waiting = sensor._asked.qsize()
    for _ in range(50):
        with pytest.raises(TaskFailed, match="not read within 2 s"):
            one.commands.sensor_read("stuck")
    assert sensor._asked.qsize() == waiting
    with file.open("w") as pipe:
        pipe.write("1 1 1\n")


ANSWERS = {
    "MCP3001": (16, 513 << 3, (513 + 1024) * 2 / 2047 - 1),
    "MCP3002": (16, 513, (513 + 1024) * 2 / 2047 - 1),
    "MCP3004": (24, 513, (513 + 1024) * 2 / 2047 - 1),
    "MCP3008": (24, 1023, 1.0),
    "MCP3201": (16, 4095 << 1, 1.0),
    "MCP3202": (24, 4095, 1.0),
    "MCP3204": (24, 4095, 1.0),
    "MCP3208": (24, 0, 4096 * 2 / 8191 - 1),
    "MCP3301": (16, 0x1000, -1.0),
    "MCP3302": (24, 4095, 1.0),
    "MCP3304": (24, 0, 4096 * 2 / 8191 - 1),
}
"""How many bits are sent, the last ones of the answer, and what that is."""


@pytest.mark.parametrize("name", ANSWERS)
def test_a_converter_that_is_there_is_told_from_one_that_is_not(
    name: str, factory: Any, bench: Callable[..., Bench]
) -> None:
    clocks, answer, value = ANSWERS[name]
    null_bit = KINDS[name].null_bit
    assert null_bit is not None
    chip = Chip(factory, clocks, null_bit, answer)
    one = bench({"volts": {"type": name, "rate": 50}})
    assert one.commands.sensor_read("volts") == pytest.approx(value)
    chip.close()
    factory.pin(9).drive_high()  # as its pull-up does, when nothing drives it
    with pytest.raises(TaskFailed, match="volts has no value: no chip answers"):
        one.commands.sensor_read("volts")


def test_a_converter_that_was_never_there_has_no_value(bench: Callable[..., Bench], told: Told) -> None:
    one = bench({"volts": {"type": "MCP3008", "rate": 50}})
    assert one.pin(9).pull == "up"
    wait_until(lambda: of(told, "volts"), 5, "a publication")
    assert of(told, "volts")[0]["reason"] == "no chip answers"
    assert {value["value"] for value in of(told, "volts")} == {None}


def turn(one: Any, steps: int) -> None:
    """Turn an encoder at pins 2 and 3 by so many steps."""
    a, b = one(2), one(3)
    for _ in range(abs(steps)):
        first, second = (a, b) if steps > 0 else (b, a)
        first.drive_low()
        second.drive_low()
        first.drive_high()
        second.drive_high()


def test_an_encoder_counts_on_past_sixteen(bench: Callable[..., Bench], told: Told) -> None:
    one = bench({"dial": {"type": "RotaryEncoder", "a": 2, "b": 3}})
    turn(one.pin, 40)
    assert one.commands.sensor_read("dial") == 40
    turn(one.pin, -100)
    assert one.commands.sensor_read("dial") == -60
    assert of(told, "dial")[-1]["value"] == -60


def test_an_encoder_ignores_what_bounces(bench: Callable[..., Bench]) -> None:
    one = bench({"dial": {"type": "RotaryEncoder", "a": 2, "b": 3, "bounce_time": 0.01}})
    assert [one.pin(number).bounce for number in (2, 3)] == [0.01, 0.01]


def test_an_encoder_goes_on_from_where_its_last_owner_was() -> None:
    layout = taskengine_hardware.read({"devices": {"dial": {"type": "RotaryEncoder", "a": 2, "b": 3}}})
    panel = SharedState(layout)
    list(taskengine_hardware.tasks(layout))
    for expected in (20, 40):
        owner: Owner = taskengine_hardware.own(layout, LANE, panel, "mock", lambda line: None)
        try:
            assert owner.device_set is not None
            turn(owner.device_set.factory.pin, 20)
            assert owner.read("dial") == expected
        finally:
            owner.close()


def test_so_does_one_that_could_not_be_had_at_first(bench: Callable[..., Bench]) -> None:
    one = bench({"dial": {"type": "RotaryEncoder", "a": 2, "b": 3}})
    (device,) = one.layout.devices.values()
    one.panel.note(device.place, 7.0)
    assert one.owner.device_set is not None
    one.owner._begin(device, one.owner.device_set)
    assert one.commands.sensor_read("dial") == 7


def test_state_is_true_also_where_nobody_takes_publications(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(topic: str, value: Any) -> None:
        raise Overloaded("full", retry_after=None)

    monkeypatch.setattr("taskengine_hardware.owner.publish_owned", refuse)
    one = bench({"button": {"type": "Button", "pin": 27, "rate": 50}})
    one.pin(27).drive_low()
    assert state_of(one, "button")["value"] == 1
    one.pin(27).drive_high()
    state = state_of(one, "button")
    assert state["value"] == 0
    wait_until(lambda: state_of(one, "button")["time"] > state["time"], 5, "a younger reading")


def sensor_of(entry: Table, told: list[Any]) -> Sensor:
    """A sensor that nobody reads, of a device that is nowhere."""
    device = taskengine_hardware.read({"devices": {"x": entry}}).devices["x"]

    def tell(device: Any, value: Any) -> bool:
        told.append(value)
        return True

    return Sensor(device, object.__new__(Nothing), tell, lambda device, value: None, lambda name, reason: None)


class Nothing:
    """An input that can be listened to."""

    when_activated: object = None
    when_deactivated: object = None


def test_of_two_readings_the_older_one_is_not_told_second() -> None:
    told: list[Any] = []
    sensor = sensor_of({"type": "Button", "pin": 4}, told)
    now = time.monotonic()
    for moment, value in ((1.0, 1), (0.5, 0), (2.0, 1), (3.0, 0)):
        sensor._take(Measurement(now + moment, value))
    assert told == [{"time": now + 1.0, "value": 1}, {"time": now + 3.0, "value": 0}]
    assert sensor.state() == Measurement(now + 3.0, 0)


def test_a_batch_says_where_nothing_was_measured() -> None:
    told: list[Any] = []
    sensor = sensor_of({"type": "Button", "pin": 4, "batch": 2}, told)
    now = time.monotonic()
    sensor._take(Measurement(now + 1, 1))
    sensor._take(Measurement(now + 2, None, "gone"))
    assert told[0].shape == (2, 2)
    assert told[0][0, 1] == 1
    assert told[0][1, 1] != told[0][1, 1]
