from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine_hardware.layout import Limits
from taskengine_hardware.motion import EASINGS, FRAME_S, Approach, Move, Pulse, Sweep, least_duration, speed_of

POSITIONS = st.floats(-180, 180)
PACES = st.floats(1, 1000)


@pytest.mark.parametrize("name", EASINGS)
def test_an_easing_is_no_faster_than_it_says(name: str) -> None:
    easing = EASINGS[name]
    assert (easing.way(0.0), easing.way(1.0)) == (0.0, pytest.approx(1.0))
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
    limits = Limits(-180, 180, speed, pull)
    duration = least_duration(target - start, EASINGS[name], limits)
    move = Move(start, target, 5.0, duration, EASINGS[name])
    assert move.at(5.0 + duration + 1e-9) == (target, True)
    steps = 200
    ways = [move.at(5.0 + duration * step / steps)[0] for step in range(steps + 1)]
    if duration > 1e-3:
        fastest = max(abs(after - before) * steps / duration for before, after in pairwise(ways))
        assert fastest <= speed * 1.01 + 1e-6


@given(POSITIONS, st.lists(POSITIONS, min_size=1, max_size=5), PACES, st.one_of(PACES, st.just(math.inf)))
def test_an_approach_arrives_and_is_never_too_fast(
    start: float, targets: list[float], speed: float, pull: float
) -> None:
    limits = Limits(-180, 180, speed, pull)
    approach = Approach(start, targets[0], 0.0, limits)
    now, position = 0.0, start
    for target in targets:
        approach.target = target
        for _ in range(30):
            now += FRAME_S
            after, _ = approach.at(now)
            assert abs(after - position) <= speed * FRAME_S * (1 + 1e-9) + 1e-9
            position = after
    for _ in range(200_000):
        now += FRAME_S
        position, is_over = approach.at(now)
        if is_over:
            break
    assert (position, is_over) == (targets[-1], True)


def test_an_approach_to_what_is_too_near_goes_past_it_and_comes_back() -> None:
    limits = Limits(-90, 90, 90.0, 90.0)
    approach, now, ways = Approach(0.0, 80.0, 0.0, limits), 0.0, [0.0]
    while ways[-1] < 40:
        now += FRAME_S
        ways.append(approach.at(now)[0])
    approach.target = ways[-1] + 1
    is_over = False
    while not is_over:
        now += FRAME_S
        position, is_over = approach.at(now)
        ways.append(position)
    speeds = [(after - before) / FRAME_S for before, after in pairwise(ways)]
    assert max(abs(after - before) for before, after in pairwise(speeds)) <= 2 * 90 * FRAME_S + 1e-6
    assert max(ways) > approach.target + 5
    assert ways[-1] == approach.target


def test_the_speed_of_what_is_on_its_way() -> None:
    move = Move(0.0, 10.0, 5.0, 2.0, EASINGS["linear"])
    assert speed_of(move, 6.0) == pytest.approx(5.0)
    assert speed_of(Pulse(True, False, 3.0), 1.0) == 0.0


def test_an_approach_that_was_not_asked_for_long_makes_no_leap() -> None:
    approach = Approach(0.0, 90.0, 0.0, Limits(-90, 90, 10.0))
    assert approach.at(10.0)[0] <= 10.0 * 5 * FRAME_S


def test_a_sweep_stays_between_its_ends() -> None:
    sweep = Sweep(-30, 60, 1.0, 2.0, 3)
    ways = [sweep.at(1.0 + step / 100)[0] for step in range(600)]
    assert min(ways) == -30
    assert max(ways) == pytest.approx(60)
    assert sweep.at(2.0) == (pytest.approx(60), False)
    assert sweep.at(7.0) == (-30, True)
    assert Sweep(0, 1, 0.0, 1.0, None).at(1e6)[1] is False


def test_a_pulse_ends() -> None:
    pulse = Pulse(True, False, 3.0)
    assert [pulse.at(now) for now in (2.0, 2.999, 3.0, 4.0)] == [(True, False)] * 2 + [(False, True)] * 2
