"""What futures become."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from concurrent.futures import CancelledError, InvalidStateError
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock

import numpy
import pytest

from taskengine.client.futures import SubmittedFuture, convert_each, returning
from taskengine.client.task_future import TaskFuture, settle
from taskengine.errors import BadArguments, Cancelled, TaskFailed


@dataclass
class Point:
    x: float


def sent(ask: Mock | None = None) -> SubmittedFuture:
    """A future whose call the engine has."""
    future = SubmittedFuture(ask or Mock())
    future.set_running_or_notify_cancel()
    future.serial, future.position = 7, 3
    return future


def test_a_call_that_was_not_sent_is_cancelled_at_once() -> None:
    future = SubmittedFuture(Mock())
    assert future.cancel()
    assert future.cancelled()
    assert future.cancel()


def test_the_engine_is_asked_to_cancel_what_it_has() -> None:
    future = sent(ask := Mock())
    assert not future.cancel()
    assert not future.cancelled()
    ask.assert_called_once_with(7, 3)
    settle(deque([(future, Cancelled("the task was cancelled before it began"))]))
    assert future.cancelled()
    assert future.cancel()
    error = future.exception(0)
    assert isinstance(error, Cancelled)
    assert isinstance(error, CancelledError)
    assert str(error) == "the task was cancelled before it began"
    with pytest.raises(CancelledError):
        future.result(0)
    assert next(concurrent.futures.as_completed([future], 0)) is future


def test_a_cancellation_that_came_too_late() -> None:
    future = sent()
    future.cancel()
    settle(deque([(future, 2.5), (future, Cancelled("late"))]))
    assert (future.result(0), future.cancelled(), future.cancel()) == (2.5, False, False)


def test_another_error_is_no_cancellation() -> None:
    future = sent()
    settle(deque([(future, TaskFailed("boom"))]))
    assert not future.cancelled()


def test_a_future_that_nobody_holds_ends_in_the_engines_error() -> None:
    """Else `await engine.call(…)` would look as if it were cancelled itself."""
    future = TaskFuture(Mock())
    future.set_running_or_notify_cancel()
    settle(deque([(future, Cancelled("by engine.cancel()"))]))
    assert not future.cancelled()


def test_a_result_is_converted() -> None:
    future = SubmittedFuture(Mock())
    future.convert = returning(Point, "where")
    settle(deque([(future, {"x": 1})]))
    assert future.result(0) == Point(1.0)
    with pytest.raises(InvalidStateError):
        future.set_result({"x": 2})


def test_a_result_that_is_not_of_the_type() -> None:
    future = SubmittedFuture(Mock())
    future.convert = returning(Point, "where")
    settle(deque([(future, {"x": "1"})]))
    with pytest.raises(BadArguments, match=r"the result of where is no Point: Expected `float`, got `str`") as caught:
        future.result(0)
    assert caught.value.name == "where"


def test_a_type_that_nothing_can_be_converted_to() -> None:
    with pytest.raises(BadArguments, match="results cannot be converted to 'Point'"):
        returning("Point", "where")


@pytest.mark.parametrize("kind", [Any, None, object])
def test_types_that_everything_is_or_only_none(kind: Any) -> None:
    assert returning(kind, "where")(None) is None


def test_the_results_of_a_map() -> None:
    error = TaskFailed("boom")
    assert convert_each([{"x": 1}, error], returning(Point, "where")) == [Point(1.0), error]
    assert convert_each(numpy.arange(2), returning(float, "where")) == [0.0, 1.0]
    results = [{"x": 1}]
    assert convert_each(results, None) is results
