"""An enabling switch: what it enables runs while it is held, and stops as its settings say when it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from taskengine import NotAllowed, Origin, SettingsError
from taskengine_hardware import read
from taskengine_hardware.rules import RuleAction
from tests.engine import wait_until
from tests.hardware.conftest import Bench
from tests.hardware.lane import Lane

LAPTOP = Origin("laptop", b"1", b"laptop")
DEADMAN: dict[str, Any] = {"type": "Button", "pin": 27}
DEVICES: dict[str, Any] = {
    "base": {"type": "Robot", "left": [9, 10], "right": [11, 12], "enable": "deadman", "stop": {"ramp": 0.2}},
    "wheel": {"type": "Motor", "forward": 4, "backward": 5, "enable": [6, "deadman"]},
    "arm": {"type": "Motor", "forward": 7, "backward": 8},
    "deadman": DEADMAN,
}


@pytest.fixture
def lane() -> Lane:
    lane = Lane(DEVICES)
    lane.sense("deadman", True, 10.0)
    lane.writes.clear()
    return lane


def drive(lane: Lane, now: float) -> None:
    lane.set("base", [1.0, -0.5], now, LAPTOP)
    for name in ("wheel", "arm"):
        lane.set(name, 1.0, now, LAPTOP)


def test_it_is_one_rule_for_each_way_to_stop() -> None:
    layout = read({"devices": DEVICES})
    assert [(rule.name, rule.action, rule.outputs, rule.ramp, str(rule.when)) for rule in layout.rules] == [
        ("deadman-base", RuleAction.RAMP, ("base",), 0.2, "not deadman"),
        ("deadman-wheel", RuleAction.STOP, ("wheel",), 0.0, "not deadman"),
    ]
    assert layout.devices["wheel"].pins == {"forward": 4, "backward": 5, "enable": 6}
    assert layout.devices["deadman"].rate == 100
    both = {"one": {**DEVICES["arm"], "enable": "deadman"}, "deadman": {**DEADMAN, "rate": 200}}
    assert [rule.name for rule in read({"devices": both}).rules] == ["deadman"]
    assert read({"devices": both}).devices["deadman"].rate == 200


def test_what_it_enables_stops_when_it_is_released_and_nothing_else(lane: Lane) -> None:
    drive(lane, 10.0)
    lane.sense("deadman", False, 10.1)
    assert (lane.value("wheel"), lane.value("arm")) == (0.0, 1.0)
    assert lane.value("base") != (0.0, 0.0)
    lane.run(10.1, 10.32)
    assert lane.value("base") == (0.0, 0.0)
    lefts = [abs(value[0]) for name, value in lane.writes if name == "base" and isinstance(value, tuple)]
    assert lefts == sorted(lefts, reverse=True)
    assert len(lefts) > 5


@pytest.mark.parametrize("name", ["base", "wheel"])
def test_nothing_moves_while_it_is_released_or_has_failed(lane: Lane, name: str) -> None:
    for value, reason in ((False, "deadman is released"), (None, "deadman")):
        lane.sense("deadman", value, 10.1)
        lane.run(10.1, 10.2)
        lane.writes.clear()
        with pytest.raises(NotAllowed, match=f"{name} is held by .*{reason}"):
            lane.set(name, [0.5, 0.5] if name == "base" else 0.5, 10.2, LAPTOP)
        assert lane.writes == []
    lane.sense("deadman", True, 10.5)
    assert lane.writes == []  # what it was told before is not carried out
    lane.set(name, [0.5, 0.5] if name == "base" else 0.5, 10.5, LAPTOP)
    assert lane.writes != []


def test_before_its_first_reading_and_after_a_silence_it_counts_as_released() -> None:
    lane = Lane(DEVICES)
    with pytest.raises(NotAllowed):
        lane.set("wheel", 1.0, 10.0, LAPTOP)
    lane.sense("deadman", True, 10.0)
    lane.set("wheel", 1.0, 10.0, LAPTOP)
    lane.run(10.0, 10.29)
    assert lane.value("wheel") == 1.0
    lane.run(10.29, 10.32)  # it is read 100 times a second, and has said nothing for 0.3 s
    assert lane.value("wheel") == 0.0


def test_its_release_does_not_disturb_a_stop_that_ramps(lane: Lane) -> None:
    drive(lane, 10.0)
    lane.control.stop(10.1)
    lane.sense("deadman", False, 10.15)
    lane.run(10.15, 10.2)
    lane.sense("deadman", True, 10.2)
    assert lane.panel.unconfirmed() == ["hardware"]
    lane.run(10.2, 10.4)
    assert lane.panel.unconfirmed() == []
    assert lane.value("base") == (0.0, 0.0)
    lefts = [abs(value[0]) for name, value in lane.writes if name == "base" and isinstance(value, tuple)]
    assert lefts == sorted(lefts, reverse=True)


def test_the_owner_acts_on_its_line_without_any_client(bench: Callable[..., Bench]) -> None:
    one = bench({**DEVICES, "wheel": {**DEVICES["wheel"], "lease": 60}})
    commands = one.commands
    with pytest.raises(NotAllowed, match="wheel is held"):
        commands.motor_forward("wheel")
    one.pin(27).drive_low()
    wait_until(lambda: "rules" not in commands.devices_state("wheel")["wheel"], 5, "the pressed switch")
    commands.motor_forward("wheel")
    assert one.pin(4).state == 1
    one.pin(27).drive_high()
    wait_until(lambda: one.pin(4).state == 0, 5, "the stop")
    listed = {row["name"]: row for row in commands.devices_list()}
    assert (listed["base"]["stop"], listed["wheel"]["stop"]) == ({"ramp": 0.2}, "cut")
    assert (listed["base"]["enable"], "enable" in listed["arm"], "stop" in listed["deadman"]) == (
        "deadman",
        False,
        False,
    )
    state = commands.devices_state("wheel")["wheel"]
    assert state["rules"] == ["deadman-wheel: deadman is released"]
    assert "deadman-wheel" in one.panel.report()["rules"]


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        (
            {"base": {**DEVICES["base"], "enable": "dead"}},
            "'dead' is no input that is on or off; the nearest is deadman",
        ),
        ({"base": {**DEVICES["base"], "enable": 5}}, "expected the name of an input, not 5"),
        ({"base": {**DEVICES["base"], "enable": ["deadman", "arm"]}}, "expected one input"),
        ({"base": {**DEVICES["base"], "enable": [5, "deadman"]}}, "expected one input"),
        ({"wheel": {**DEVICES["wheel"], "enable": [5, 6, "deadman"]}}, "one pin if it has such"),
        ({"wheel": {**DEVICES["wheel"], "enable": "arm"}}, "'arm' is no input that is on or off"),
        ({"deadman": {**DEADMAN, "enable": "arm"}}, "a Button is read"),
        ({"deadman": {**DEADMAN, "stops": True}}, "deadman stops already"),
        ({"deadman": {**DEADMAN, "bounce_time": 0.1}}, "acts within 20 ms"),
        ({"deadman": {**DEADMAN, "lane": "legs"}}, "in lane"),
    ],
)
def test_unsuitable_settings_name_the_reason(devices: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        read({"devices": {**DEVICES, **devices}})
