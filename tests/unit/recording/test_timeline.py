from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from taskengine.recording.timeline import NS, begin_of, due, is_wanted, moment


class Times(NamedTuple):
    log_time: int
    publish_time: int


def test_a_message_counts_when_it_was_made_but_not_one_of_long_ago() -> None:
    assert moment(Times(10 * NS, 10 * NS - 5_000_000)) == 10 * NS - 5_000_000
    assert moment(Times(10 * NS, 2 * NS)) == 10 * NS, "the last value that a new subscriber gets"
    assert moment(Times(10 * NS, 11 * NS)) == 10 * NS, "somebody set the clock"


def test_what_is_due_when() -> None:
    recorded = [(100 * NS, "a"), (102 * NS, "b"), (101 * NS, "late"), (104 * NS, "c")]
    assert list(due(recorded)) == [(0, "a"), (2, "b"), (2, "late"), (4, "c")]
    assert list(due(recorded, 2.0, 4.0)) == [(0, "b"), (0.5, "c")]
    assert list(due(recorded, datetime.fromtimestamp(103, UTC))) == [(1, "c")]
    assert list(due(iter(()))) == []


def test_where_a_replay_begins() -> None:
    assert begin_of("2.5") == 2.5
    assert begin_of("2026-12-01T03:00:00") == datetime(2026, 12, 1, 3, tzinfo=UTC)
    assert begin_of("2026-12-01T04:00:00+01:00") == datetime(2026, 12, 1, 3, tzinfo=UTC)
    for text in ("yesterday", "-1", "nan", "inf"):
        with pytest.raises(ValueError, match=text):
            begin_of(text)


def test_which_topics_are_wanted() -> None:
    assert is_wanted("arm.left", [])
    assert is_wanted("arm.left", ["leg", "arm.*"])
    assert not is_wanted("arm.left", ["arm"])
