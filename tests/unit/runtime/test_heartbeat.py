from __future__ import annotations

import pytest

from taskengine.runtime.heartbeat import Heartbeat, HeartbeatMonitor

INTERVAL = 0.5
LIMIT = 3.0


def looks(start: float, stop: float) -> list[float]:
    """A look every interval."""
    return [start + INTERVAL * n for n in range(1, int((stop - start) / INTERVAL) + 1)]


@pytest.fixture
def census() -> HeartbeatMonitor:
    return HeartbeatMonitor(INTERVAL, LIMIT, 0.0)


def test_who_is_heard_in_time_is_never_silent(census: HeartbeatMonitor) -> None:
    for now in looks(0.0, 20.0):
        census.heard("w", now)
        assert census.silent(now) == []


def test_who_is_silent_for_longer_than_the_limit_is_found_at_every_look(census: HeartbeatMonitor) -> None:
    census.heard("w", 0.0)
    found = {now: census.silent(now) for now in looks(0.0, 5.0)}
    assert [now for now, silent in found.items() if silent] == [3.5, 4.0, 4.5, 5.0]
    census.heard("w", 5.0)
    assert census.silent(5.5) == []
    census.leave("w")
    assert census.silent(60.0) == []


def test_only_who_joined_is_missed(census: HeartbeatMonitor) -> None:
    for now in looks(0.0, 10.0):
        assert census.silent(now) == []
    census.leave("stranger")


def test_the_time_in_which_nobody_looked_counts_against_nobody(census: HeartbeatMonitor) -> None:
    census.heard("w", 0.0)
    for now in looks(0.0, 2.0):
        assert census.silent(now) == []
    # the whole machine stood still
    assert census.silent(1000.0) == []
    assert census.silent(1000.5) == []
    assert [now for now in looks(1000.5, 1003.0) if census.silent(now)] == [1001.5, 2 * 500.5 + 1, 1002.5, 1003.0]


def test_stopped_counts_from_when_it_was_seen_first(census: HeartbeatMonitor) -> None:
    census.heard("w", 0.0)
    assert not census.is_frozen("w", 100.0, stopped=True)
    assert not census.is_frozen("w", 102.9, stopped=True)
    assert not census.is_frozen("w", 103.0, stopped=False)
    assert not census.is_frozen("w", 103.1, stopped=True)
    assert not census.is_frozen("w", 106.1, stopped=True)
    assert census.is_frozen("w", 106.2, stopped=True)
    census.leave("w")
    assert not census.is_frozen("w", 200.0, stopped=True)


def test_who_was_away_itself_takes_nobody_for_frozen(census: HeartbeatMonitor) -> None:
    census.heard("w", 0.0)
    for now in looks(0.0, 4.0):
        census.silent(now)
    assert not census.is_frozen("w", 4.0, stopped=True)
    census.silent(60.0)
    assert not census.is_frozen("w", 60.0, stopped=True)


def test_a_pulse_is_due_an_interval_after_anything_was_sent() -> None:
    pulse = Heartbeat(INTERVAL, LIMIT, 0.0)
    assert pulse.due(0.0) == INTERVAL
    pulse.sent(0.25)
    assert pulse.due(0.5) == 0.25
    assert pulse.due(9.0) == 0.0


def test_a_pulse_misses_a_peer_that_is_silent() -> None:
    pulse = Heartbeat(INTERVAL, LIMIT, 0.0)
    pulse.heard(1.0)
    assert [now for now in looks(0.0, 5.0) if pulse.is_silent(now)] == [4.5, 5.0]
    pulse.heard(5.0)
    assert not pulse.is_silent(5.5)


def test_a_long_task_does_not_make_the_router_silent() -> None:
    pulse = Heartbeat(INTERVAL, LIMIT, 0.0)
    assert not pulse.is_silent(60.0)
    assert not pulse.is_silent(60.5)
    assert not pulse.is_silent(63.0)
