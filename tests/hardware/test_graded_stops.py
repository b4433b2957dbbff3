"""Stops by a ramp, within the bounds of a lease and a stop; and lines that beat while they are on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import closing
from itertools import groupby, pairwise
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine import BadArguments, NotAllowed, Origin, SettingsError, TaskEngineError
from taskengine_hardware import SharedState, read
from taskengine_hardware.device_config import Value
from taskengine_hardware.failover import GRACE_S, STOP_S, Action, FailoverPolicy
from taskengine_hardware.motion import FRAME_S
from taskengine_hardware.outputs import NS
from taskengine_hardware.shared_state import NEVER
from tests.engine import deadline, wait_until
from tests.hardware.conftest import Bench
from tests.hardware.lane import Lane

LAPTOP, TABLET = Origin("laptop", b"1", b"laptop"), Origin("tablet", b"2", b"tablet")
WHEEL: dict[str, Any] = {"type": "Motor", "forward": 4, "backward": 5, "stop": {"ramp": 0.2}}
DEVICES: dict[str, Any] = {
    "wheel": WHEEL,
    "base": {"type": "Robot", "left": [9, 10], "right": [11, 12], "stop": "ramp", "soft_start": 0.1},
    "fan": {"type": "PWMOutput", "pin": 6, "stop": "ramp"},
    "arm": {"type": "Motor", "forward": 7, "backward": 8},
    "awake": {"type": "DigitalOutput", "pin": 13, "lease": 0.5, "beat": 0.05},
    "lamp": {"type": "LED", "pin": 14},
}


@pytest.fixture
def lane() -> Lane:
    return Lane(DEVICES)


def written(lane: Lane, name: str) -> list[Any]:
    return [value for each, value in lane.writes if each == name]


def is_falling(values: list[Any]) -> bool:
    return all(abs(one) >= abs(other) for one, other in pairwise(values))


def levels(lane: Lane, name: str) -> list[Any]:
    """The values that differ from those before them."""
    return [value for value, _ in groupby(written(lane, name))]


# Stops ----------------------------------------------------------------------------------------------------------------


def test_a_stop_ramps_those_that_say_so_and_cuts_the_others(lane: Lane) -> None:
    for name, value in (("wheel", -1.0), ("base", [1.0, 0.5]), ("fan", 0.8), ("arm", 1.0)):
        lane.set(name, value, 10.0, LAPTOP)
    lane.run(10.0, 10.15)
    lane.writes.clear()
    lane.control.stop(10.15)
    assert lane.writes == [("arm", 0.0), ("awake", False), ("lamp", False)]
    assert lane.panel.unconfirmed() == ["hardware"]
    lane.run(10.15, 10.349)
    assert lane.panel.unconfirmed() == ["hardware"]
    lane.run(10.349, 10.4)
    assert lane.panel.unconfirmed() == []
    for name in ("wheel", "fan"):
        assert is_falling(written(lane, name))
        assert 9 <= len(written(lane, name)) <= 12
        assert written(lane, name)[-1] == 0
    lefts, rights = zip(*written(lane, "base"), strict=True)
    assert is_falling(list(lefts))
    assert all(left == pytest.approx(2 * right) for left, right in zip(lefts, rights, strict=True))
    assert set(lane.panel.ends) == {NEVER}


def test_nothing_is_accepted_while_a_stop_ramps_and_no_arm(lane: Lane) -> None:
    lane.set("wheel", 1.0, 10.0, LAPTOP)
    lane.control.stop(10.1)
    deeds: list[Callable[[], None]] = [
        lambda: lane.set("wheel", 1.0, 10.15, LAPTOP),
        lambda: lane.control.acquire([lane.output("wheel")], LAPTOP, 10.15),
        lambda: lane.control.arm(LAPTOP, 10.15, 1),
    ]
    for deed in deeds:
        with pytest.raises(NotAllowed):
            deed()
    lane.run(10.1, 10.4)
    lane.control.arm(LAPTOP, 10.5, 1)
    assert lane.value("wheel") == 0


def test_a_second_stop_begins_no_second_ramp(lane: Lane) -> None:
    lane.set("wheel", 1.0, 10.0, LAPTOP)
    lane.control.stop(10.1)
    lane.control.tick(10.2)
    lane.control.stop(10.2)
    lane.run(10.2, 10.31)
    assert lane.panel.unconfirmed() == []
    assert lane.value("wheel") == 0


def test_a_call_to_rest_ramps_and_the_next_command_replaces_it(lane: Lane) -> None:
    lane.set("wheel", 1.0, 10.0, LAPTOP)
    lane.control.bring_to_rest(lane.output("wheel"), TABLET, 0, 10.1)
    lane.run(10.1, 10.2)
    assert 0.4 < float(str(lane.value("wheel"))) < 0.6
    lane.set("wheel", 0.7, 10.2, LAPTOP)
    lane.run(10.2, 10.3)
    assert lane.value("wheel") == 0.7


# Leases ---------------------------------------------------------------------------------------------------------------


def test_a_ramp_ends_with_the_lease(lane: Lane) -> None:
    lane.set("wheel", 1.0, 10.0, LAPTOP)
    lane.run(10.0, 10.29)
    assert written(lane, "wheel") == [1.0]
    lane.run(10.29, 10.4)
    assert 0.3 < float(str(lane.value("wheel"))) < 0.7
    lane.run(10.4, 10.501)
    assert lane.value("wheel") == 0
    assert is_falling(written(lane, "wheel"))
    assert lane.panel.ends[lane.output("wheel").place] == NEVER


def test_commands_and_renewals_in_time_know_nothing_of_the_ramp(lane: Lane) -> None:
    lane.set("wheel", 1.0, 10.0, LAPTOP)
    for step in range(1, 20):
        now = 10.0 + step / 4
        lane.run(now - 0.25, now)
        if step % 2:
            lane.set("wheel", 1.0, now, LAPTOP)
        else:
            lane.control.renew([lane.output("wheel")], LAPTOP, now)
    assert set(written(lane, "wheel")) == {1.0}


@pytest.mark.parametrize(("name", "value"), [("wheel", 1.0), ("base", (1.0, 0.5)), ("fan", 0.5)])
def test_a_renewal_that_is_late_but_in_the_lease_brings_the_value_back(name: str, value: Value) -> None:
    lane = Lane({**DEVICES, "fan": {**DEVICES["fan"], "lease": 0.5}})
    lane.set(name, list(value) if isinstance(value, tuple) else value, 10.0, LAPTOP)
    lane.run(10.0, 10.4)
    assert lane.value(name) != value
    lane.control.renew([lane.output(name)], LAPTOP, 10.4)
    lane.run(10.4, 10.6)
    assert lane.value(name) == value
    lane.run(10.6, 11.0)
    with pytest.raises(NotAllowed):
        lane.control.renew([lane.output(name)], LAPTOP, 11.0)
    assert not any(lane.output(name).rest == held for held in (value,))
    assert lane.value(name) == lane.output(name).rest


def test_a_strangers_renewal_does_not_bring_it_back(lane: Lane) -> None:
    wheel = lane.output("wheel")
    lane.control.acquire([wheel], TABLET, 9.9)
    lane.set("wheel", 1.0, 10.0, LAPTOP)
    lane.run(10.0, 10.35)
    lane.control.renew([wheel], TABLET, 10.35)
    lane.run(10.35, 10.501)
    assert lane.value("wheel") == 0


DEEDS = st.sampled_from(["set", "set", "renew", "stop", "arm", "rest", "wait", "press", "release"])
STEPS = st.tuples(DEEDS, st.floats(-1.0, 1.0), st.floats(0.0, 0.4))
HELD = {"wheel": {**WHEEL, "enable": "deadman"}, "deadman": {"type": "Button", "pin": 27, "max_age": 60}}


@given(st.lists(STEPS, max_size=20))
def test_whatever_happens_it_is_at_rest_within_its_bounds(steps: list[tuple[str, float, float]]) -> None:
    with closing(Lane(HELD)) as lane:
        wheel, now = lane.output("wheel"), 10.0
        bounds = {"lease": 0.0}  # by when it has to be at rest
        lane.sense("deadman", True, now)
        for deed, speed, pause in steps:
            with contextlib.suppress(TaskEngineError):
                if deed == "set":
                    lane.set("wheel", speed, now, LAPTOP)
                    bounds["lease"] = now + 0.5
                elif deed == "renew":
                    lane.control.renew([wheel], LAPTOP, now)
                    bounds["lease"] = now + 0.5
                elif deed == "stop":
                    lane.control.stop(now)
                    bounds.setdefault("stop", now + 0.2)
                elif deed == "arm":
                    lane.control.arm(LAPTOP, now, lane.panel.number)
                    bounds.pop("stop", None)
                elif deed == "rest":
                    lane.control.bring_to_rest(wheel, LAPTOP, 0, now)
                elif deed == "release":
                    lane.sense("deadman", False, now)
                    bounds.setdefault("deadman", now + 0.2 + FRAME_S)
                elif deed == "press":
                    lane.sense("deadman", True, now)
                    bounds.pop("deadman", None)
            lane.run(now, now + pause)
            now += pause
            if now > min(bounds.values()) + 1e-6:
                assert lane.value("wheel") == 0
        lane.run(now, now + 1.0)
        assert lane.value("wheel") == 0
        assert lane.panel.unconfirmed() == []


# Guardian -------------------------------------------------------------------------------------------------------------


class _Words(TypedDict):
    wanted_by: int
    has_begun: bool


def test_the_guardian_waits_for_the_ramp_of_a_stop_and_no_longer() -> None:
    policy, words = FailoverPolicy([0], ramp=0.3), _Words(wanted_by=0, has_begun=True)
    policy.begins(7)
    patience = int((STOP_S + 0.3) * NS)
    assert policy.next([NEVER], patience - NS // 1000, stopped_at=0, **words) is None
    assert policy.next([NEVER], patience + NS // 1000, stopped_at=0, **words) is Action.KILL
    # a dead one's pins are cut at once, and a lease has no patience
    assert policy.next([1], int(GRACE_S * NS) + NS // 1000, **words) is Action.KILL
    policy.died(7)
    assert policy.next([NEVER], NS, stopped_at=0, **words) is Action.SEIZE
    assert SharedState(read({"devices": DEVICES})).ramp_s == 0.2


# Lines that beat ------------------------------------------------------------------------------------------------------


def test_a_line_toggles_while_it_is_on(lane: Lane) -> None:
    lane.set("awake", True, 10.0, LAPTOP)
    lane.run(10.0, 10.22)
    assert levels(lane, "awake") == [True, False, True, False, True]
    assert lane.value("awake") is True
    assert lane.panel.last(lane.output("awake").place, lane.output("awake").role) is True
    lane.set("awake", True, 10.22, LAPTOP)
    lane.run(10.22, 10.32)
    assert levels(lane, "awake")[5:] == [False, True]  # the same beat goes on
    lane.set("awake", False, 10.32, LAPTOP)
    lane.run(10.32, 10.9)
    assert levels(lane, "awake")[7:] == [False]


def test_its_beat_ends_with_the_lease_and_with_a_stop(lane: Lane) -> None:
    lane.set("awake", True, 10.0, LAPTOP)
    lane.run(10.0, 10.6)
    assert levels(lane, "awake")[-1] is False
    assert len(levels(lane, "awake")) == 10
    lane.set("awake", True, 11.0, LAPTOP)
    lane.control.stop(11.01)
    lane.run(11.01, 11.5)
    assert levels(lane, "awake")[10:] == [True, False]
    with pytest.raises(BadArguments, match="awake beats while it is on"):
        lane.control.pulse(lane.output("awake"), True, False, 1.0, LAPTOP, 12.0)


def test_it_beats_on_its_pin_and_is_seen(bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskengine_hardware.commands.STOP_S", deadline(5))
    wheel = {**WHEEL, "stop": {"ramp": 1}, "lease": 60}
    one = bench({"awake": {"type": "DigitalOutput", "pin": 13, "beat": 0.01}, "wheel": wheel})
    one.commands.gpio_write("awake", True)
    wait_until(lambda: len(one.pin(13).states) > 6, 5, "some beats")
    assert one.commands.devices_state("awake")["awake"]["effect"] == "beat"
    assert one.commands.devices_state("awake")["awake"]["value"] is True
    one.commands.motor_forward("wheel")
    one.commands.system_stop()
    assert one.pin(13).state == 0
    assert one.pin(4).state == 0
    edges = [state.state for state in one.pin(4).states]
    assert len(edges) > 4
    beats = len(one.pin(13).states)
    with pytest.raises(NotAllowed):
        one.commands.gpio_write("awake", True)
    assert len(one.pin(13).states) == beats


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "ramp"),
    [
        ({**WHEEL, "stop": "cut"}, 0.0),
        ({**WHEEL, "stop": "ramp"}, 0.2),
        ({**WHEEL, "stop": "ramp", "lease": "strict"}, 0.125),
        ({**WHEEL, "stop": {"ramp": 1}, "lease": 2}, 1.0),
        ({"type": "PWMLED", "pin": 4, "stop": {"ramp": 0.5}}, 0.5),
    ],
)
def test_a_ramp_has_its_time(entry: dict[str, Any], ramp: float) -> None:
    assert read({"devices": {"x": entry}}).devices["x"].stop_ramp == ramp


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({**WHEEL, "stop": "slow"}, r"stop: expected .cut., .ramp. or"),
        ({**WHEEL, "stop": {"ramp": 0.3}}, r"at most half of its lease, 0\.25 s"),
        ({**WHEEL, "stop": {"ramp": 9}}, r"stop.ramp: expected a number from 0\.02 to 1"),
        ({**WHEEL, "stop": "ramp", "pwm": False}, "only on or off, and has no ramp"),
        ({"type": "PWMLED", "pin": 4, "stop": "ramp", "safe": 0.5}, "a ramp ends at 0"),
        ({"type": "LED", "pin": 4, "stop": "ramp"}, "a LED has no stop"),
        ({"type": "PWMLED", "pin": 4, "beat": 0.1}, "a PWMLED has no beat"),
        ({"type": "LED", "pin": 4, "beat": 2}, r"beat: expected a number from 0\.005 to 1"),
        ({"type": "LED", "pin": 4, "beat": 0.1, "safe": True}, "leave out safe"),
    ],
)
def test_unsuitable_settings_name_the_reason(entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        read({"devices": {"x": entry}})
