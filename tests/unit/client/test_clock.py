from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.client.clock import DRIFT_PPM, FRESH_NS, LATEST, EngineClock

MS = 10**6
S = 10**9
BOOT = 77


def clock(*samples: tuple[int, int, int], boot: int = BOOT) -> EngineClock:
    """One that has taken (sent, received, the engine's clock)."""
    made = EngineClock()
    for sent, received, engine in samples:
        made.take(sent, received, engine, boot)
    return made


DELAYS = st.integers(0, 20 * S)
TRIPS = st.lists(st.tuples(st.integers(0, 60 * S), DELAYS, DELAYS), min_size=1, max_size=20)


@given(
    trips=TRIPS,
    offset=st.integers(-(10**17), 10**17),
    ppm=st.integers(-DRIFT_PPM // 2, DRIFT_PPM // 2),
    asked=st.integers(-100 * S, 3600 * S),
)
def test_the_true_time_is_within_the_bound(
    trips: list[tuple[int, int, int]], offset: int, ppm: int, asked: int
) -> None:
    start = 10**18

    def engine(local: int) -> int:
        return local + offset + (local - start) * ppm // 10**6

    made, now = EngineClock(), start
    for pause, there, back in trips:
        now += pause
        made.take(now, now + there + back, engine(now + there), BOOT)
        now += there + back
    local = now + asked
    estimate = made.at(local)
    assert estimate is not None
    time, bound = estimate
    assert abs(time - engine(local)) <= bound


@given(trips=TRIPS)
def test_no_sample_makes_the_bound_wider(trips: list[tuple[int, int, int]]) -> None:
    made, now = EngineClock(), 10**18
    for pause, there, back in trips:
        now += pause + there + back
        before = made.at(now)
        made.take(now - there - back, now, now, BOOT)
        after = made.at(now)
        assert after is not None
        assert before is None or after[1] <= before[1]


def test_nothing_is_known_without_a_sample() -> None:
    made = EngineClock()
    assert made.at(5 * S) is None
    assert not made.is_fresh(5 * S)


def test_the_shortest_round_trip_counts() -> None:
    made = clock((0, 100 * MS, 7 * S), (200 * MS, 202 * MS, 9 * S), (300 * MS, 400 * MS, 1 * S))
    estimate = made.at(401 * MS)
    assert estimate is not None
    time, bound = estimate
    assert time == 9 * S + 200 * MS
    assert MS < bound < 2 * MS


def test_a_slow_reply_does_not_spoil_an_old_estimate() -> None:
    """One that has called nothing for half a minute, and then a task that takes 5 s, may drive at once."""
    made = clock((0, 2 * MS, 7 * S), (40 * S, 45 * S, 50 * S))
    estimate = made.at(45 * S)
    assert estimate is not None
    assert estimate[1] < 15 * MS
    assert not made.is_fresh(45 * S)


def test_an_estimate_is_fresh_for_half_a_minute() -> None:
    made = clock((0, 2 * MS, 7 * S))
    assert made.is_fresh(MS + FRESH_NS)
    assert not made.is_fresh(MS + FRESH_NS + 1)


def test_an_old_sample_gives_way_to_one_that_is_no_worse() -> None:
    made = clock((0, 2 * MS, 7 * S), (40 * S, 40 * S + 4 * MS, 48 * S))
    assert made.at(40 * S + 2 * MS) == (48 * S, 2 * MS + 401)
    assert made.is_fresh(41 * S)


def test_another_boot_forgets_what_was_known() -> None:
    made = clock((0, 2 * MS, 7 * S))
    made.take(S, 3 * S, 100 * S, BOOT + 1)
    estimate = made.at(2 * S)
    assert estimate is not None
    assert estimate[0] == 100 * S
    assert estimate[1] > S


def test_what_is_forgotten_is_not_known() -> None:
    made = clock((0, 2 * MS, 7 * S))
    made.forget()
    assert made.at(S) is None


def test_a_clock_that_was_set_back_gives_no_sample() -> None:
    assert clock((S, 0, 7 * S)).at(S) is None


@pytest.mark.parametrize(("engine", "local", "expected"), [(5, -S, 1), (2**64 - 1, S, LATEST)])
def test_a_time_can_always_be_sent(engine: int, local: int, expected: int) -> None:
    estimate = clock((0, 2, engine)).at(local)
    assert estimate is not None
    assert estimate[0] == expected
