from __future__ import annotations

import pytest

from taskengine_hardware.failover import (
    BEAT_S,
    BLIND_S,
    FORGET_S,
    GRACE_S,
    HOLD_S,
    MAX_GRACE_S,
    NS,
    RETRY_S,
    STOP_S,
    STUCK_S,
    Action,
    FailoverPolicy,
    Lateness,
)
from taskengine_hardware.shared_state import NEVER

S = NS


def ward() -> FailoverPolicy:
    made = FailoverPolicy([0, 2])
    made.begins(100)
    return made


def test_a_lease_that_is_kept_is_nobodys_business() -> None:
    assert ward().next([5 * S, 0, 0], 4 * S, wanted_by=0, has_begun=True) is None
    assert ward().next([0, 1, 0], 4 * S, wanted_by=0, has_begun=True) is None  # of another lane


def test_an_owner_that_lets_a_lease_pass_is_ended() -> None:
    late = 5 * S + int(GRACE_S * S)
    assert ward().next([0, 0, 5 * S], late, wanted_by=0, has_begun=True) is None
    assert ward().next([0, 0, 5 * S], late + 1, wanted_by=0, has_begun=True) is Action.KILL


def test_nobody_is_ended_who_was_not_started_or_is_dead() -> None:
    assert FailoverPolicy([0]).next([1], 9 * S, wanted_by=0, has_begun=True) is None
    dead = ward()
    dead.died(100)
    assert dead.next([1, 0, 0], 9 * S, wanted_by=0, has_begun=True) is Action.SEIZE


def test_the_pins_of_the_dead_are_seized_and_given_to_the_next() -> None:
    lane = ward()
    lane.died(100)
    assert lane.next([0] * 3, S, wanted_by=101, has_begun=True) is Action.SEIZE
    lane.seized()
    assert lane.next([0] * 3, S, wanted_by=0, has_begun=True) is None
    lane.begins(101)
    assert lane.next([0] * 3, S, wanted_by=0, has_begun=True) is None
    assert lane.next([0] * 3, S, wanted_by=101, has_begun=True) is Action.YIELD
    lane.yielded()
    assert lane.next([0] * 3, S, wanted_by=0, has_begun=True) is None
    assert lane.owner == 101


def test_the_death_of_one_before_leaves_the_next_its_owner() -> None:
    lane = ward()
    lane.begins(101)
    lane.died(100)
    assert lane.owner == 101
    lane.taken_over()
    assert lane.next([0] * 3, S, wanted_by=0, has_begun=True) is None


def test_a_second_death_does_not_have_the_pins_seized_twice() -> None:
    lane = ward()
    lane.died(100)
    lane.seized()
    lane.begins(101)
    lane.died(101)
    assert lane.next([0] * 3, S, wanted_by=0, has_begun=True) is None
    assert lane.is_held


def test_an_owner_that_does_not_heed_a_stop_is_ended() -> None:
    late = 5 * S + int(STOP_S * S)
    assert ward().next([0] * 3, late, wanted_by=0, has_begun=True, stopped_at=5 * S) is None
    assert ward().next([0] * 3, late + 1, wanted_by=0, has_begun=True, stopped_at=5 * S) is Action.KILL
    assert ward().next([0] * 3, late + 1, wanted_by=0, has_begun=True) is None


def test_it_looks_again_when_a_stop_may_have_passed() -> None:
    assert ward().due([0] * 3, 5 * S, has_begun=True, stopped_at=5 * S) == pytest.approx(STOP_S)


def test_an_owner_that_beats_no_more_is_ended() -> None:
    late = 5 * S + int((BEAT_S + GRACE_S) * S)
    assert ward().due([0] * 3, 5 * S, has_begun=True, beaten=5 * S) == pytest.approx(BLIND_S)
    assert ward().due([0] * 3, late, has_begun=True, beaten=5 * S) == pytest.approx(0, abs=1e-6)
    assert ward().next([0] * 3, late, wanted_by=0, has_begun=True, beaten=5 * S) is None
    assert ward().next([0] * 3, late + 1, wanted_by=0, has_begun=True, beaten=5 * S) is Action.KILL
    assert ward().next([0] * 3, 99 * S, wanted_by=0, has_begun=True, beaten=NEVER) is None


def test_a_late_wake_up_gives_owners_a_whole_grace() -> None:
    lane, ends, woke = ward(), [5 * S, 0, 0], 9 * S
    lane.excuse(ends, woke)
    assert lane.due(ends, woke, has_begun=True) == pytest.approx(GRACE_S)
    assert lane.next(ends, woke + int(GRACE_S * S), wanted_by=0, has_begun=True) is None
    assert lane.next(ends, woke + int(GRACE_S * S) + 1, wanted_by=0, has_begun=True) is Action.KILL


def test_the_same_lapse_is_excused_once() -> None:
    lane, ends = ward(), [5 * S, 0, 0]
    lane.excuse(ends, 9 * S)
    lane.excuse(ends, 9 * S + int(GRACE_S * S))
    assert lane.next(ends, 9 * S + int(GRACE_S * S) + 1, wanted_by=0, has_begun=True) is Action.KILL
    lane.excuse([8 * S, 0, 0], 10 * S)
    assert lane.next([8 * S, 0, 0], 10 * S + 1, wanted_by=0, has_begun=True) is None


def test_what_is_not_over_needs_no_excuse() -> None:
    lane = ward()
    lane.excuse([10 * S, 0, 0], 9 * S)
    assert lane.next([10 * S, 0, 0], 10 * S + int(GRACE_S * S) + 1, wanted_by=0, has_begun=True) is Action.KILL


@pytest.mark.parametrize("duty", [{"stopped_at": 5 * S}, {"beaten": 5 * S}])
def test_stops_and_beats_are_excused_too(duty: dict[str, int]) -> None:
    lane = ward()
    lane.excuse([0] * 3, 9 * S, **duty)
    assert lane.next([0] * 3, 9 * S + 1, wanted_by=0, has_begun=True, **duty) is None


def test_the_grace_is_as_long_as_the_machine_is_late() -> None:
    lateness = Lateness()
    assert lateness.grace(S) == GRACE_S
    assert not lateness.woke(S, S - 5)  # something happened before
    assert not lateness.woke(S, S + int(0.02 * S)), "within the grace it is no news"
    assert lateness.grace(S + int(0.02 * S)) == pytest.approx(GRACE_S + 0.02)
    assert lateness.woke(2 * S, 2 * S + int(0.1 * S))
    now = 2 * S + int(0.1 * S)
    assert lateness.grace(now) == pytest.approx(GRACE_S + 0.1)
    assert not lateness.woke(now, now + int(0.05 * S)), "we know that by now"
    late = 9 * S
    lane = ward()
    grace = Lateness.grace(lateness, late)
    assert lane.next([late, 0, 0], late + int(grace * S), wanted_by=0, has_begun=True, grace=grace) is None
    assert lane.next([late, 0, 0], late + int(grace * S) + 1, wanted_by=0, has_begun=True, grace=grace) is Action.KILL


def test_lateness_is_forgotten_and_has_a_limit() -> None:
    lateness = Lateness()
    assert lateness.woke(S, 100 * S)
    assert lateness.grace(100 * S) == MAX_GRACE_S
    later = 100 * S + int(FORGET_S * S)
    assert lateness.grace(later) == pytest.approx(GRACE_S + MAX_GRACE_S / 2)
    assert lateness.grace(later + 60 * S) == pytest.approx(GRACE_S, abs=1e-4)


def test_what_an_owner_before_has_left_is_not_held_against_the_next() -> None:
    lane = ward()
    lane.died(100)
    lane.taken_over()
    lane.begins(101)
    assert lane.next([1, 0, 0], 9 * S, wanted_by=0, has_begun=False, stopped_at=0) is None
    assert lane.due([1, 0, 0], 9 * S, has_begun=False) == BLIND_S
    assert lane.next([1, 0, 0], 9 * S, wanted_by=0, has_begun=True) is Action.KILL


def test_pins_that_could_not_be_had_are_tried_for_again() -> None:
    lane = ward()
    lane.died(100)
    lane.failed(S)
    assert lane.next([1, 0, 0], S, wanted_by=0, has_begun=False) is None
    assert lane.due([1, 0, 0], S, has_begun=False) == pytest.approx(RETRY_S)
    assert lane.next([1, 0, 0], S + int(RETRY_S * S), wanted_by=0, has_begun=False) is Action.SEIZE


def test_short_leases_are_looked_after_more_often() -> None:
    lane = FailoverPolicy([0], 0.05)
    lane.begins(100)
    assert lane.due([0], S, has_begun=True) == 0.05


@pytest.mark.parametrize(("end", "seconds"), [(0, BLIND_S), (S, GRACE_S), (S - 1, GRACE_S - 1e-9), (9 * S, BLIND_S)])
def test_it_looks_again_when_a_lease_may_have_passed(end: int, seconds: float) -> None:
    assert ward().due([0, 0, end], S, has_begun=True) == pytest.approx(seconds)


def test_it_looks_often_while_it_has_pins() -> None:
    lane = ward()
    lane.seized()
    assert lane.due([0] * 3, S, has_begun=True) == HOLD_S


def test_a_killed_owner_is_killed_once_and_seized_when_the_kernel_has_ended_it() -> None:
    lane = ward()
    late = 9 * S
    assert lane.next([1, 0, 0], late, wanted_by=0, has_begun=True) is Action.KILL
    lane.killed(late)
    # it may be in a call of the kernel, for as long as that takes
    for now in (late, late + S, late + 100 * S):
        assert lane.next([1, 0, 0], now, wanted_by=0, has_begun=True) is None
        assert lane.due([1, 0, 0], now, has_begun=True) == BLIND_S
        assert lane.is_stuck(now) is (now >= late + STUCK_S * S)
    lane.died(100)
    assert not lane.is_killed
    assert not lane.is_stuck(late + 100 * S)
    assert lane.next([1, 0, 0], late + 100 * S, wanted_by=0, has_begun=True) is Action.SEIZE


def test_the_next_owner_is_not_taken_for_the_killed_one() -> None:
    lane = ward()
    lane.killed(9 * S)
    lane.begins(101)
    assert lane.next([1, 0, 0], 9 * S, wanted_by=0, has_begun=True) is Action.KILL
