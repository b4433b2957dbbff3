from __future__ import annotations

import pytest

from taskengine.client.verdict import FIRST_REPEAT_S, GRACE_S, LONGEST_REPEAT_S, NOT_CONFIRMED, Verdict, most_telling
from taskengine.errors import (
    EngineUnreachable,
    NotAllowed,
    ProtocolError,
    TaskEngineError,
    TaskFailed,
    TaskTimeout,
    UnknownTask,
)

WAYS = ["guardian", "stop port", "router"]
LATE = TaskFailed("stopped, but not safe yet", type=NOT_CONFIRMED, traceback="")
REFUSED = NotAllowed("you may not")
UNKNOWN = UnknownTask("there is no machine")


def verdict(timeout: float = 5.0) -> Verdict:
    """One of three ways, each of which was taken at 10.0."""
    made = Verdict(WAYS, 10.0, timeout)
    assert made.due(10.0) == WAYS
    return made


def test_one_confirmation_is_enough() -> None:
    made = verdict()
    made.take("router", REFUSED, 10.01)
    made.take("guardian", None, 10.02)
    assert (made.is_over(10.02), made.is_confirmed) == (True, True)
    assert made.left(10.02) == 0.0


def test_each_way_is_repeated_ever_more_slowly() -> None:
    made, now, pauses = verdict(60.0), 10.0, []
    for _ in range(6):
        left = made.left(now)
        now += left
        pauses.append(round(left, 6))
        assert made.due(now) == WAYS
    assert pauses == [FIRST_REPEAT_S, 0.4, 0.8, LONGEST_REPEAT_S, LONGEST_REPEAT_S, LONGEST_REPEAT_S]


def test_it_is_over_when_the_time_is() -> None:
    made = verdict(5.0)
    assert not made.is_over(14.9)
    assert made.is_over(15.0)
    assert made.error() is None


def test_a_lane_that_is_late_is_asked_about_again() -> None:
    made = verdict()
    made.take("router", LATE, 10.2)
    assert "router" in made.due(10.3)
    made.take("router", None, 10.4)
    assert made.is_confirmed


def test_a_refusal_leaves_the_others_a_moment() -> None:
    made = verdict()
    made.take("router", REFUSED, 10.1)
    assert made.due(10.3) == ["guardian", "stop port"]
    assert not made.is_over(10.1 + GRACE_S - 0.01)
    assert made.is_over(10.1 + GRACE_S)
    assert made.error() is REFUSED


@pytest.mark.parametrize(
    "answers", [[("router", REFUSED), ("guardian", LATE)], [("guardian", LATE), ("router", REFUSED)]]
)
def test_a_refusal_hurries_nobody_where_the_stop_is_in_force(answers: list[tuple[str, TaskEngineError]]) -> None:
    made = verdict()
    for way, error in answers:
        made.take(way, error, 10.1)
    assert not made.is_over(12.0)
    assert made.error() is LATE


def test_where_nothing_can_be_stopped_it_is_over_at_once() -> None:
    made = verdict()
    made.take("router", UNKNOWN, 10.1)
    assert made.is_over(10.1)
    assert made.error() is UNKNOWN


def test_it_is_over_when_every_way_has_refused() -> None:
    made = verdict()
    for way in WAYS:
        made.take(way, ProtocolError("no engine"), 10.1)
    assert made.is_over(10.1)
    assert isinstance(made.error(), ProtocolError)


def test_the_most_telling_error() -> None:
    errors = [EngineUnreachable("nobody"), TaskTimeout("late"), UNKNOWN, REFUSED, LATE]
    for count in range(len(errors), 0, -1):
        assert most_telling(errors[:count]) is errors[count - 1]
    assert most_telling([]) is None
