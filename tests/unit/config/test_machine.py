"""Where the engine meets the package that owns pins."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest

from taskengine import SettingsError
from taskengine.config.machine import Machine

TABLE: dict[str, Any] = {
    "devices": {"pan": {"type": "Servo", "pin": 18}, "hip": {"type": "Servo", "pin": 4, "lane": "legs"}},
}


def test_its_tasks_are_named_by_their_lanes() -> None:
    machine = Machine(TABLE, "mock")
    assert machine.lanes == ["hardware", "legs"]
    lanes = {options["name"]: options["lane"] for _, options in machine.tasks()}
    assert lanes["servo.set"] == lanes["task_servo_set"] == "hardware"
    assert lanes["legs.servo.set"] == lanes["task_legs_servo_set"] == "legs"
    assert {name for name, lane in lanes.items() if name.startswith("task_")} == {
        f"task_{prefix}servo_{verb}" for prefix in ("", "legs_") for verb in ("set", "move", "sweep", "halt", "detach")
    }


def test_a_machine_that_nobody_shares_takes_no_stop() -> None:
    machine = Machine(TABLE, "mock")
    assert (machine.stop(5), machine.stop_number(), machine.unconfirmed()) == (0, 0, [])
    assert not machine.rest("motor.stop", "pan", 5, 0)


def test_a_stop_has_a_number_until_it_is_armed() -> None:
    machine = Machine(TABLE, "mock")
    machine.share()
    assert machine.stop_number() == 0
    assert machine.stop(5, by="anna", why="smoke", id=b"one") == 1
    assert machine.stop_number() == machine.stop(6, id=b"one") == 1
    assert machine.unconfirmed() == ["hardware", "legs"]
    machine._panel.arm(1, b"", 6)
    assert machine.stop_number() == 0


def test_its_tasks_that_stop_or_rest_are_known_by_name() -> None:
    machine = Machine(TABLE, "mock")
    assert machine.stop_tasks == {"system.stop", "legs.system.stop"}
    assert machine.rest_tasks["legs.robot.stop"] == "legs"
    assert machine.stop_lanes == {"system.stop": "hardware", "legs.system.stop": "legs"}
    assert machine.rest_tasks["device.rest"] == "hardware"
    assert machine.rest_tasks.keys().isdisjoint(["servo.set", "system.arm"])


@pytest.mark.parametrize(
    ("task", "device", "is_known"),
    [
        ("device.rest", "pan", True),
        ("legs.device.rest", "hip", True),
        ("device.rest", "hip", False),
        ("device.rest", "none", False),
        ("device.rest", ["pan"], False),
        ("device.rest", None, False),
        ("device.rest", "load", False),
        ("servo.set", "pan", False),
    ],
)
def test_a_device_is_rested_by_name(task: str, device: object, is_known: bool) -> None:
    devices = {**TABLE["devices"], "load": {"type": "LoadAverage"}}
    machine = Machine({"devices": devices}, "mock")
    machine.share()
    assert machine.rest(task, device, 7, 2) is is_known
    rested = [machine._panel.rested(place) for place in range(3)]
    assert ((7, 2) in rested) is is_known


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> ModuleType:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(SettingsError, match="hardware: taskengine_hardware cannot be loaded"):
        Machine(TABLE, "mock")


def test_what_has_which_pin() -> None:
    assert Machine(TABLE, "mock").owners() == {18: "pan (Servo, lane hardware)", 4: "hip (Servo, lane legs)"}
