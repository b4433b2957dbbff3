"""Rules in the owner of pins, on mock pins: edges, readings, faults and the supply act in its threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import taskengine_hardware.power
from taskengine import NotAllowed
from taskengine_hardware.lane_notes import LaneNote
from taskengine_hardware.plausibility import Measurement
from taskengine_hardware.sensors import Sensor
from tests.engine import wait_until
from tests.hardware.conftest import Bench

BASE = {"type": "Robot", "left": [5, 6], "right": [12, 13], "lease": 60}
STOP = {"type": "Button", "pin": 22, "stops": True, "max_age": 60}
BUMPER = {"type": "Button", "pin": 4, "blocks": {"base": "forward"}, "max_age": 60}
FORWARD, STILL = (1.0, 1.0), (0.0, 0.0)

Make = Callable[..., Bench]


def closed(make: Make, *numbers: int, **devices: dict[str, Any]) -> Bench:
    """A bench with these contacts, which are closed, and armed."""
    bench = make({"base": BASE, **devices})
    for number in numbers:
        bench.pin(number).drive_low()
    wait_until(lambda: not bench.panel.notes.all().reasons, 5, "the inputs")
    bench.commands.system_arm(bench.panel.number)
    return bench


def value(bench: Bench, name: str = "base") -> Any:
    return bench.commands.devices_state(name)[name]["value"]


def test_an_open_stop_input_stops_the_machine_in_the_thread_that_hears_it(bench: Callable[..., Bench]) -> None:
    one = closed(bench, 22, estop=STOP)
    stop = one.panel.number + 1
    one.commands.robot_drive("base", 1, 1)
    one.pin(22).drive_high()  # which calls gpiozero's handler
    assert value(one) == STILL
    assert one.commands.system_state()["why"] == "estop: the stop input is open"
    assert one.commands.system_check() == {"armed": False, "stop": stop, "reasons": ["estop: the stop input is open"]}
    with pytest.raises(NotAllowed, match="cannot be armed: estop: the stop input is open"):
        one.commands.system_arm(stop)
    one.pin(22).drive_low()
    assert one.commands.system_check() == {"armed": False, "stop": stop, "reasons": []}
    one.commands.system_arm(stop)
    one.commands.robot_drive("base", 1, 1)
    assert value(one) == FORWARD


def test_a_stop_input_that_is_open_from_the_start_stops_the_machine(bench: Callable[..., Bench]) -> None:
    one = bench({"base": BASE, "estop": STOP})
    wait_until(lambda: one.panel.is_stopped, 5, "the stop")
    assert one.panel.latest().why == "estop: the stop input is open"


def test_a_stop_of_a_moment_is_not_missed(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time it is heard, the contact is closed again."""
    one = closed(bench, 22, estop=STOP)
    sensor = one.owner.sensors.known["estop"]
    monkeypatch.setattr(Sensor, "_hear", lambda sensor: None)
    sensor._hear_edge(False)
    assert one.panel.is_stopped
    wait_until(lambda: not one.panel.notes.all().reasons, 5, "the next reading")
    assert one.panel.is_stopped


def test_a_bumper_blocks_a_direction(bench: Callable[..., Bench]) -> None:
    one = closed(bench, 4, bumper=BUMPER)
    one.commands.robot_drive("base", 1, 1)
    one.pin(4).drive_high()
    state = one.commands.devices_state()
    assert state["base"]["value"] == STILL
    assert state["base"]["rules"] == ["bumper: bumper blocks forward"]
    with pytest.raises(NotAllowed, match="base is held by bumper: bumper blocks forward"):
        one.commands.devices_write({"base": [1, 1]})
    one.commands.robot_drive("base", -1, -1)
    one.pin(4).drive_low()
    assert "rules" not in one.commands.devices_state()["base"]
    one.commands.robot_drive("base", 1, 1)


def test_an_input_that_was_left_out_counts_as_the_worst(bench: Callable[..., Bench]) -> None:
    missing = {"type": "CPUTemperature", "sensor_file": "/nowhere"}
    one = bench({"base": BASE, "cpu": missing}, rules={"hot": {"when": "cpu > 80", "then": "stop"}})
    with pytest.raises(NotAllowed, match="base is held by hot: cpu has no value: left out"):
        one.commands.robot_drive("base", 1, 1)
    assert "cpu has no value: left out" in one.commands.system_check()["reasons"][0]


def test_an_input_that_is_required_is_a_reason_without_a_rule(bench: Callable[..., Bench]) -> None:
    one = bench({"base": BASE, "cpu": {"type": "CPUTemperature", "sensor_file": "/nowhere", "required": True}})
    one.commands.robot_drive("base", 1, 1)
    one.commands.system_stop()
    with pytest.raises(NotAllowed, match="cannot be armed: cpu has no value: left out"):
        one.commands.system_arm(1)


def test_what_is_not_plausible_stands_in_the_state(bench: Callable[..., Bench]) -> None:
    cpu = {"type": "CPUTemperature", "sensor_file": "tests/hardware/thermometer", "range": [90, 100], "rate": 100}
    one = bench({"base": BASE, "cpu": cpu}, rules={"hot": {"when": "cpu > 95", "then": {"limit": 0.2}}})
    wait_until(lambda: one.commands.devices_state("cpu")["cpu"]["value"] is not None, 5, "a reading")
    wait_until(lambda: "range" in one.commands.devices_state("cpu")["cpu"].get("fault", ""), 5, "its judgement")
    one.commands.robot_drive("base", 1, 1)
    assert value(one) == (0.2, 0.2)


def test_a_client_that_commands_a_stopped_machine(bench: Callable[..., Bench]) -> None:
    one = bench({"base": BASE})
    one.commands.system_stop()
    for _ in range(3):
        with pytest.raises(NotAllowed):
            one.commands.robot_drive("base", 1, 1)
    assert one.commands.system_check()["reasons"] == ["client without a name is commanding base"]
    wait_until(lambda: not one.panel.report()["reasons"], 5, "its end")
    one.commands.system_arm(1)


def test_the_reasons_of_all_lanes_speak_against_an_arm(bench: Callable[..., Bench]) -> None:
    one = bench({"base": BASE, "pan": {"type": "Servo", "pin": 26, "lane": "legs"}})
    one.panel.write_note("legs", LaneNote({"far": "far: it is open"}, ["far: it is open"]))
    with pytest.raises(NotAllowed, match="cannot be armed: far: it is open"):
        one.commands.system_arm(0)
    one.commands.robot_drive("base", 1, 1)
    assert one.commands.system_state()["rules"] == {"far": "far: it is open"}


@pytest.mark.parametrize(
    ("weak", "pins", "reasons"),
    [
        (True, "mock", ["weak: the supply is weak", "the firmware reports undervoltage"]),
        (False, "mock", []),
        (None, "mock", []),
        (None, "lgpio", ["weak: undervoltage has no value: no firmware tells"]),
    ],
)
def test_the_supply(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, weak: bool | None, pins: str, reasons: list[str]
) -> None:
    monkeypatch.setattr(taskengine_hardware.power, "undervoltage", lambda: weak)
    monkeypatch.setattr(taskengine_hardware.power, "MOCK", pins)
    rule = {"when": "undervoltage", "then": "latch", "text": "the supply is weak"}
    one = bench({"base": BASE}, rules={"weak": rule})
    is_wrong = bool(reasons)
    wait_until(lambda: one.panel.is_stopped is is_wrong, 5, "the first look")
    wait_until(lambda: one.commands.system_check()["reasons"] == reasons, 5, "the reasons")
    assert one.panel.is_stopped is is_wrong


def test_a_weak_supply_speaks_against_an_arm_without_a_rule(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taskengine_hardware.power, "undervoltage", lambda: True)
    one = bench({"base": BASE})
    wait_until(lambda: one.panel.report()["reasons"] == ["the firmware reports undervoltage"], 5, "the first look")
    one.commands.robot_drive("base", 1, 1)
    one.commands.system_stop()
    with pytest.raises(NotAllowed, match="the firmware reports undervoltage"):
        one.commands.system_arm(1)


def test_pins_that_fail_while_a_rule_acts_end_the_process(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the guardian gets them."""
    one = closed(bench, 22, estop=STOP)
    one.commands.robot_drive("base", 1, 1)
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)

    def fails(value: object) -> None:
        raise OSError("no such line")

    output = one.owner.control.find("base")
    write = output.write
    monkeypatch.setattr(output, "write", fails)
    one.owner._judge("estop", Measurement(time.monotonic(), False))
    assert ended
    assert "an output fails: OSError: no such line" in one.said[-1]
    with one.owner.lock:  # nobody is between its failure and the exit
        monkeypatch.setattr(output, "write", write)


def test_the_threads_of_a_contact_have_priority(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    hurried: list[int] = []
    monkeypatch.setattr("taskengine_hardware.sensors.hurry", lambda: hurried.append(threading.get_ident()))
    plain = {"type": "Button", "pin": 27, "rate": 100}
    one = closed(bench, 22, estop=STOP, plain=plain)
    wait_until(lambda: hurried, 5, "the input's thread")
    assert len(hurried) == 1
    sensor = one.owner.sensors.known["estop"]
    for _ in range(2):
        thread = threading.Thread(target=sensor._hear_edge, args=(True,))
        thread.start()
        thread.join()
    assert len(hurried) >= 2
    assert threading.get_ident() not in hurried
