from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine_hardware.device_config import DeviceLimits
from taskengine_hardware.effects import Pulse
from taskengine_hardware.motion import (
    EASINGS,
    FRAME_S,
    Move,
    Ramp,
    State,
    Sweep,
    Then,
    Trapezoid,
    go,
    least_duration,
)

POSITIONS = st.floats(-180, 180)
PACES = st.floats(1, 1000)


@pytest.mark.parametrize("name", EASINGS)
def test_an_easing_is_no_faster_than_it_says(name: str) -> None:
    easing = EASINGS[name]
    assert easing.way(0.0) == 0.0
    assert easing.way(1.0) == pytest.approx(1.0)
    steps = 10000
    ways = [easing.way(step / steps) for step in range(steps + 1)]
    speeds = [(after - before) * steps for before, after in pairwise(ways)]
    accelerations = [(after - before) * steps for before, after in pairwise(speeds)]
    assert min(speeds) > -1e-9
    assert max(speeds) == pytest.approx(easing.speed, rel=1e-3)
    if easing.acceleration < math.inf:
        assert max(map(abs, accelerations)) == pytest.approx(easing.acceleration, rel=1e-2)


@given(POSITIONS, POSITIONS, PACES, PACES, st.sampled_from(["sine", "smooth"]))
def test_a_move_keeps_to_its_limits(start: float, target: float, speed: float, pull: float, name: str) -> None:
    limits = DeviceLimits(-180, 180, speed, pull)
    duration = least_duration(target - start, EASINGS[name], limits)
    move = Move(start, target, 5.0, duration, EASINGS[name])
    assert move.at(5.0 + duration + 1e-9) == (target, True)
    steps = 200
    ways = [move.at(5.0 + duration * step / steps)[0] for step in range(steps + 1)]
    if duration > 1e-3:
        fastest = max(abs(after - before) * steps / duration for before, after in pairwise(ways))
        assert fastest <= speed * 1.01 + 1e-6


@given(POSITIONS, st.floats(-1, 1), POSITIONS, PACES, st.one_of(PACES, st.just(math.inf)), st.floats(0, 5))
def test_a_trapezoid_arrives_within_its_limits(
    start: float, share: float, target: float, speed: float, pull: float, duration: float
) -> None:
    """From any speed with which it can still brake before the ends of its range."""
    limits = DeviceLimits(-180, 180, speed, pull)
    room = 180 - start if share > 0 else start + 180
    fastest = 0.0 if math.isinf(pull) else min(speed, math.sqrt(2 * pull * room))
    motion = Trapezoid(State(start, share * fastest), target, 5.0, limits, duration)
    assert motion.at(motion.end) == (target, True)
    assert motion.state(motion.end) == (target, 0.0)
    assert motion.state(5.0) == pytest.approx((start, share * fastest if pull < math.inf else motion.state(5.0)[1]))
    steps = 400
    step = (motion.end - 5.0) / steps
    states = [motion.state(5.0 + step * number) for number in range(steps)] + [motion.state(motion.end)]
    assert all(-180 - 1e-6 <= state.position <= 180 + 1e-6 for state in states)
    for before, after in pairwise(states):
        assert abs(after.position - before.position) <= speed * step * (1 + 1e-6) + 1e-6
        if pull < math.inf:
            assert abs(after.speed - before.speed) <= pull * step * (1 + 1e-6) + 1e-6
            mean = (after.speed + before.speed) / 2
            assert abs(after.position - before.position - mean * step) <= pull * step * step + 1e-6
    # as soon as asked for, or as soon as it can be, where it need not brake first
    if not share and abs(start - target) > 1e-9:
        assert motion.end - 5.0 >= duration * (1 - 1e-9) - 1e-7


@given(POSITIONS, POSITIONS, PACES, PACES, st.floats(0, 1), st.floats(0.1, 5))
def test_a_trapezoid_takes_the_time_that_it_is_given(
    start: float, target: float, speed: float, pull: float, share: float, longer: float
) -> None:
    limits = DeviceLimits(-180, 180, speed, pull)
    way = target - start
    began = State(start, math.copysign(share * min(speed, math.sqrt(2 * pull * abs(way))), way))
    least = Trapezoid(began, target, 0.0, limits).end
    braking = abs(began.speed) / pull
    asked = max(least, braking) + longer
    if abs(way) > 1e-3 and share < 0.99:
        assert Trapezoid(began, target, 0.0, limits, asked).end == pytest.approx(asked, rel=1e-6)


def test_a_trapezoid_to_what_is_too_near_goes_past_it_and_comes_back() -> None:
    limits = DeviceLimits(-90, 90, 90.0, 90.0)
    motion = Trapezoid(State(40.0, 80.0), 41.0, 0.0, limits)
    ways = [motion.at(step * FRAME_S)[0] for step in range(int(motion.end / FRAME_S) + 2)]
    assert max(ways) > 41 + 5
    assert ways[-1] == 41.0


@pytest.mark.parametrize("name", EASINGS)
def test_the_speed_of_what_is_on_its_way(name: str) -> None:
    move = Move(0.0, 10.0, 5.0, 2.0, EASINGS[name])
    sweep = Sweep(-30.0, 60.0, 5.0, 2.0, 3)
    for motion in (move, sweep, Then(move, Sweep(10.0, 0.0, 7.0, 4.0, None))):
        for now in (5.3, 6.0, 6.7):
            (before, _), (after, _) = motion.at(now - 1e-6), motion.at(now + 1e-6)
            assert isinstance(before, float)
            assert isinstance(after, float)
            assert motion.state(now) == pytest.approx((motion.at(now)[0], (after - before) / 2e-6), rel=1e-4)
    assert move.state(7.5) == (10.0, 0.0)
    assert sweep.state(99.0) == (-30.0, 0.0)
    assert [sweep.left(now) for now in (5.0, 7.5, 9.5, 99.0)] == [3, 2, 1, 1]


def test_a_move_goes_by_its_easing_from_rest_and_by_a_trapezoid_else() -> None:
    limits, way = DeviceLimits(-90, 90, 100.0, 200.0), EASINGS["smooth"]
    assert isinstance(go(State(0.0), 60.0, 0.0, limits, 2.0, way), Move)
    moving = go(State(0.0, 50.0), 60.0, 0.0, limits, 2.0, way)
    assert isinstance(moving, Trapezoid)
    assert moving.end == pytest.approx(2.0)
    assert go(State(0.0, 50.0), 60.0, 0.0, None, 2.0, way) == Move(0.0, 60.0, 0.0, 2.0, way)


@pytest.mark.parametrize(
    ("start", "target", "ways"),
    [
        ((0.0,), (1.0,), [0.0, 0.25, 0.5, 1.0]),
        ((0.0,), (-0.3,), [0.0, -0.25, -0.3, -0.3]),
        ((0.8,), (0.2,), [0.2, 0.2, 0.2, 0.2]),
        ((0.8,), (-0.5,), [0.0, -0.25, -0.5, -0.5]),
        ((0.5, -0.5), (1.0, -0.25), [(0.5, -0.25), (0.75, -0.25), (1.0, -0.25), (1.0, -0.25)]),
    ],
)
def test_a_ramp_grows_and_sinks_at_once(start: tuple[float, ...], target: tuple[float, ...], ways: list[Any]) -> None:
    ramp = Ramp(start, target, 10.0, 0.5)
    found = [ramp.at(now) for now in (10.0, 10.5, 11.0, 12.0)]
    assert [way for way, _ in found] == ways
    assert found[-1][1]


def test_a_sweep_stays_between_its_ends() -> None:
    sweep = Sweep(-30, 60, 1.0, 2.0, 3)
    ways = [sweep.at(1.0 + step / 100)[0] for step in range(600)]
    assert min(ways) == -30
    assert max(ways) == pytest.approx(60)
    assert sweep.at(2.0)[0] == pytest.approx(60)
    assert sweep.at(2.0)[1] is False
    assert sweep.at(7.0) == (-30, True)
    assert Sweep(0, 1, 0.0, 1.0, None).at(1e6)[1] is False


def test_a_pulse_ends() -> None:
    pulse = Pulse(True, False, 3.0)
    assert [pulse.at(now) for now in (2.0, 2.999, 3.0, 4.0)] == [(True, False)] * 2 + [(False, True)] * 2
