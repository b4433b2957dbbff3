"""When sources are sampled, and which take longer than their period."""

from __future__ import annotations

import pytest

from taskengine.messages import SourceStats
from taskengine.rhythm import RECENT_S, Rhythm, overrunning


def sampled(rhythm: Rhythm, took: float) -> float:
    """Take a sample when it is due; when that ended."""
    now = rhythm.due
    rhythm.begin(now)
    rhythm.end(now + took)
    return now + took


def test_a_source_keeps_its_beat() -> None:
    rhythm = Rhythm("x", 0.5, now=10.0)
    assert rhythm.due == 10.0
    for beat in range(1, 4):
        sampled(rhythm, 0.1)
        assert rhythm.due == pytest.approx(10.0 + beat * 0.5)
    assert overrunning([rhythm], 12.0) == []


def test_a_slow_source_skips_beats_and_is_named() -> None:
    slow, quick = Rhythm("slow", 1.0, now=0.0), Rhythm("quick", 1.0, now=0.0)
    sampled(quick, 0.2)
    now = sampled(slow, 2.5)
    assert slow.due == 3.0
    assert overrunning([slow, quick], now) == [SourceStats("slow", 1.0, 2.5, 2)]
    now = sampled(slow, 1.5)
    assert overrunning([slow], now) == [SourceStats("slow", 1.0, 2.5, 3)]
    assert overrunning([slow], now + RECENT_S + 0.1) == []


def test_one_that_was_late_itself_does_not_overrun() -> None:
    rhythm = Rhythm("x", 1.0, now=0.0)
    rhythm.begin(5.0)
    rhythm.end(5.1)
    assert rhythm.due == 6.0
    assert overrunning([rhythm], 5.2) == []


def test_one_that_does_not_end_is_named_meanwhile() -> None:
    rhythm = Rhythm("x", 1.0, now=0.0)
    rhythm.begin(0.0)
    assert overrunning([rhythm], 0.5) == []
    assert overrunning([rhythm], 30.0) == [SourceStats("x", 1.0, 30.0, 0)]


def test_what_was_long_ago_is_the_longest_no_more() -> None:
    rhythm = Rhythm("x", 1.0, now=0.0)
    sampled(rhythm, 5.0)
    rhythm.due = 100.0
    now = sampled(rhythm, 1.5)
    assert overrunning([rhythm], now) == [SourceStats("x", 1.0, 1.5, 5)]
