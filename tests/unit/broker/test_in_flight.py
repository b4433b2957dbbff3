from __future__ import annotations

import pytest

from taskengine.broker.in_flight import InFlight
from taskengine.broker.package import Package
from taskengine.broker.quota import NO_LIMITS, QuotaLimits
from taskengine.errors import Overloaded, TaskFailed
from taskengine.protocol.messages import Priority
from tests.packages import package


def accepted(made: InFlight, tasks: int) -> Package:
    one = package(tasks)
    made.add(one, lambda: 1.0)
    one.cut(None, {})
    return one


def test_a_package_is_whole_with_its_last_answer_and_then_nowhere() -> None:
    made = InFlight(NO_LIMITS)
    one = package(3)
    one.priority = Priority.URGENT
    made.add(one, lambda: 1.0)
    one.cut(None, {})
    assert (made.packages, made.urgent, made.tasks) == ({1: one}, 1, 3)
    assert made.size == one.size
    assert made.put(one, 1, 3, 1, 10, b"<1><2>") == []
    assert made.size == one.size + 6
    assert made.gaps() == [(one, 0, 1)]
    assert made.fail([(one, 0, 1)], TaskFailed("no")) == [one]
    assert one.results.join() == b"<0 TaskFailed><1><2>"
    assert one.results.failed == 2
    assert (made.packages, made.urgent, made.tasks, made.size, len(made.serials)) == ({}, 0, 0, 0, 0)


def test_a_result_for_which_there_is_no_room_is_not_taken() -> None:
    made = InFlight(QuotaLimits(10, 2**20, 10, 2**14))
    one = accepted(made, 1)
    assert made.put(one, 0, 1, 0, 1, bytes(2**14)) is None
    assert (one.results.missing, made.counters.answered) == (1, 0)


def test_a_package_that_is_refused_leaves_nothing() -> None:
    made = InFlight(QuotaLimits(2, 2**30, 2, 2**30))
    with pytest.raises(Overloaded):
        accepted(made, 3)
    assert (made.packages, made.tasks, made.counters.accepted) == ({}, 0, 0)


def test_a_package_of_which_only_cancelled_tasks_are_left_is_touched() -> None:
    made = InFlight(NO_LIMITS)
    one = accepted(made, 3)
    one.flight.cancellation.cancel([1, 2], one.count, one.results)
    assert made.touched == set()
    made.put(one, 0, 1, 0, 1, b"<0>")
    assert made.touched == {one}
