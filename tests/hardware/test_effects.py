"""Effects as functions of the time: without pins, without a clock that runs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine import NotAllowed, Origin, TaskFailed
from taskengine_hardware.device_config import Value
from taskengine_hardware.effects import Beat, Blink, Effect, Fade, Pulse, Sink
from taskengine_hardware.motion import FRAME_S
from tests.hardware.lane import Lane

LAPTOP = Origin("laptop", b"1", b"laptop")
TIMES = st.floats(0.0, 5.0)


def played(effect: Effect, start: float, end: float) -> list[tuple[float, Value]]:
    """The changes of the value, as an owner that is never late drives them."""
    changes: list[tuple[float, Value]] = []
    now = start
    while now <= end:
        value, is_over = effect.at(now)
        if not changes or changes[-1][1] != value:
            changes.append((now, value))
        if is_over:
            break
        due = effect.due(now)
        assert due > now
        now = due
    return changes


def test_a_blink_has_the_order_of_gpiozeros() -> None:
    blink = Blink(True, False, 0.5, 1.5, 0.0, 0.0, 2, 100.0)
    assert played(blink, 100.0, 200.0) == [(100.0, True), (100.5, False), (102.0, True), (102.5, False)]
    assert blink.at(103.999) == (False, False)
    assert blink.at(104.0) == (False, True)
    assert (blink.name, blink.after) == ("blink", False)


def test_a_pulse_fades_in_and_out_fifty_times_a_second() -> None:
    pulse = Blink(1.0, 0.0, 0.0, 0.0, 1.0, 0.5, 1, 10.0)
    changes = played(pulse, 10.0, 20.0)
    assert pulse.name == "pulse"
    assert changes[0] == (10.0, 0.0)
    assert changes[-1] == (11.5, 0.0)
    top = max(changes, key=lambda change: float(str(change[1])))
    assert top[0] == pytest.approx(11.0, abs=FRAME_S)
    assert top[1] == pytest.approx(1.0, abs=0.05)
    assert 70 <= len(changes) <= 77
    assert pulse.at(10.5)[0] == pytest.approx(0.5, abs=FRAME_S)
    assert pulse.at(11.25)[0] == pytest.approx(0.5, abs=2 * FRAME_S)


def test_a_blink_with_fades_stays_at_its_ends() -> None:
    blink = Blink((1.0, 0.5, 0.0), (0.0, 0.0, 0.2), 1.0, 1.0, 1.0, 1.0, None, 0.0)
    assert blink.at(1.5) == ((1.0, 0.5, 0.0), False)
    assert blink.at(3.5) == ((0.0, 0.0, 0.2), False)
    assert blink.at(4000.5)[0] == pytest.approx((0.5, 0.25, 0.1), abs=FRAME_S)
    assert blink.due(1.5) == 2.0
    assert blink.due(3.5) == 4.0


def test_a_fade_ends_at_its_target() -> None:
    fade = Fade(0.2, 0.8, 1.0, 5.0)
    changes = played(fade, 5.0, 9.0)
    values = [float(str(value)) for _, value in changes]
    assert changes[-1] == (6.0, 0.8)
    assert values == sorted(values)
    assert len(values) == pytest.approx(50, abs=2)
    assert Fade(0.2, 0.8, 0.0, 5.0).at(5.0) == (0.8, True)
    assert (fade.name, fade.after, fade.state(5.5).speed) == ("fade", 0.8, 0.0)


def test_any_number_of_lights_fade_in_the_same_frames() -> None:
    one, other = Fade(0.0, 1.0, 1.0, 5.0031), Fade(1.0, 0.0, 2.0, 5.0142)
    assert one.due(5.1) == other.due(5.1)


@given(TIMES, TIMES, TIMES, TIMES, st.none() | st.integers(1, 5), st.floats(0.0, 1e6), st.floats(0.0, 30.0))
def test_a_change_is_always_ahead_and_a_value_always_between(
    on_time: float, off_time: float, fade_in: float, fade_out: float, cycles: int | None, began: float, after: float
) -> None:
    if on_time + off_time + fade_in + fade_out < FRAME_S:
        on_time += FRAME_S
    blink = Blink(1.0, 0.25, on_time, off_time, fade_in, fade_out, cycles, began)
    now = began + after
    value, is_over = blink.at(now)
    assert 0.25 <= float(str(value)) <= 1.0
    assert is_over == (cycles is not None and now >= began + cycles * blink.period)
    if is_over:
        assert value == 0.25
        return
    due = blink.due(now)
    assert due > now
    # between two changes the value stays: an owner that sleeps until then misses nothing
    between = [now + (due - now) * part for part in (0.25, 0.5, 0.99)]
    assert all(blink.at(moment)[0] == value for moment in between if now < moment < due)


@pytest.mark.parametrize(
    ("third", "began", "now"),
    [(1 / 9, 0.3, 202.29999999999998), (1 / 9, 5.3, 312.96666666666664)],
    ids=["too large", "too small"],
)
def test_a_cycle_is_found_although_a_division_is_wrong_by_one(third: float, began: float, now: float) -> None:
    blink = Blink(True, False, third, 2 * third, 0.0, 0.0, None, began)
    for moment in (math.nextafter(now, 0), now, math.nextafter(now, math.inf)):
        assert blink.due(moment) > moment
        assert blink.at(blink.due(moment))[0] is not blink.at(moment)[0]


@pytest.mark.parametrize(
    ("effect", "name", "after"),
    [
        (Pulse(True, False, 3.0), "once", False),
        (Blink(1.0, 0.0, 0.0, 0.0, 1.0, 1.0, None, 0.0), "pulse", 0.0),
        (Fade(0.0, 0.5, 1.0, 0.0), "fade", 0.5),
        (Sink(1.0, 0.0, 0.2, 0.0, False), "ramp", 0.0),
        (Beat(0.1, 0.0), "beat", True),
    ],
)
def test_each_effect_has_a_name_and_a_value_at_its_end(effect: Effect, name: str, after: Value) -> None:
    assert (effect.name, effect.after, effect.state(0.1).speed) == (name, after, 0.0)


def test_an_owner_that_wakes_late_goes_on_where_the_effect_is_by_then() -> None:
    blink = Blink(True, False, 0.5, 0.5, 0.0, 0.0, None, 0.0)
    assert [blink.at(now)[0] for now in (0.0, 7.2, 7.6, 1e6 + 0.1)] == [True, True, False, True]


# In the control of a lane ---------------------------------------------------------------------------------------------

DEVICES: dict[str, Any] = {
    "lamp": {"type": "LED", "pin": 8},
    "held": {"type": "LED", "pin": 9, "safe": "hold"},
    "leased": {"type": "PWMLED", "pin": 10, "lease": 0.5},
    "slow": {"type": "PWMLED", "pin": 11, "limits": {"speed": 1.0}},
}


@pytest.fixture
def lane() -> Lane:
    return Lane(DEVICES)


def blinking(now: float, **kwargs: Any) -> Blink:
    given = {"on": True, "off": False, "on_time": 0.5, "off_time": 0.5, "fade_in": 0.0, "fade_out": 0.0}
    return Blink(**{**given, "cycles": None, "began": now, **kwargs})


def play(lane: Lane, name: str, effect: Effect, now: float) -> None:
    lane.control.play([(lane.output(name), effect)], LAPTOP, now)


def test_the_owner_plays_a_blink_and_sleeps_in_between(lane: Lane) -> None:
    play(lane, "lamp", blinking(10.0, cycles=2), 10.0)
    assert lane.control.due <= 10.0  # to publish
    lane.control.tick(10.0)
    assert lane.control.due == 10.5
    lane.run(10.0, 20.0)
    assert lane.writes == [("lamp", value) for value in (True, False, True, False, False)]
    assert lane.output("lamp").motion is None
    assert lane.control.due == math.inf


def test_the_next_command_replaces_an_effect(lane: Lane) -> None:
    play(lane, "lamp", blinking(10.0), 10.0)
    lane.set("lamp", True, 10.2, LAPTOP)
    lane.run(10.2, 15.0)
    assert lane.writes == [("lamp", True), ("lamp", True)]
    play(lane, "lamp", blinking(15.0), 15.0)
    play(lane, "lamp", blinking(15.1, on_time=3.0), 15.1)
    lane.run(15.1, 18.0)
    assert lane.value("lamp") is True


def test_a_stop_and_a_call_to_rest_end_effects(lane: Lane) -> None:
    play(lane, "lamp", blinking(10.0), 10.0)
    play(lane, "held", blinking(10.0), 10.0)
    lane.control.bring_to_rest(lane.output("lamp"), LAPTOP, 0, 10.1)
    assert lane.output("lamp").motion is None
    lane.control.stop(10.2)
    assert (lane.value("lamp"), lane.value("held")) == (False, False)
    lane.writes.clear()
    lane.run(10.2, 20.0)
    assert lane.writes == []
    with pytest.raises(NotAllowed):
        play(lane, "lamp", blinking(20.0), 20.0)
    assert lane.writes == []


def test_an_effect_runs_under_the_lease(lane: Lane) -> None:
    play(lane, "leased", Blink(1.0, 0.0, 0.1, 0.1, 0.0, 0.0, None, 10.0), 10.0)
    lane.run(10.0, 20.0)
    assert lane.writes[-1] == ("leased", 0.0)
    assert lane.output("leased").motion is None
    assert len(lane.writes) == 6  # on, off, on, off, on; and off at 10.5


def test_effects_of_a_group_begin_together_or_not_at_all(lane: Lane) -> None:
    lane.output("held").failure = "gone"
    pairs: list[tuple[Any, Effect]] = [(lane.output(name), blinking(10.0)) for name in ("lamp", "held")]
    with pytest.raises(TaskFailed, match="held was left out"):
        lane.control.play(pairs, LAPTOP, 10.0)
    assert lane.writes == []


def test_a_servos_motion_is_not_disturbed_by_what_a_lamp_does() -> None:
    lane = Lane({"lamp": {"type": "PWMLED", "pin": 8}, "pan": {"type": "AngularServo", "pin": 4, "lease": 60}})
    lane.set("pan", 0, 10.0, LAPTOP)
    lane.control.move(lane.output("pan"), 50.0, 1.0, "linear", LAPTOP, 10.0)
    play(lane, "lamp", Fade(0.0, 1.0, 0.7, 10.0), 10.0)
    lane.run(10.0, 12.0)
    angles = [float(str(value)) for name, value in lane.writes if name == "pan"]
    assert angles == sorted(angles)
    assert angles[-1] == 50.0
    assert all(other - one < 2.1 for one, other in pairwise(angles))
    assert lane.value("lamp") == 1.0


def test_a_pulse_of_a_switch_is_an_effect_too(lane: Lane) -> None:
    lane.control.pulse(lane.output("lamp"), True, False, 0.25, LAPTOP, 10.0)
    assert isinstance(lane.output("lamp").motion, Pulse)
    lane.run(10.0, 11.0)
    assert lane.writes == [("lamp", True), ("lamp", False)]
