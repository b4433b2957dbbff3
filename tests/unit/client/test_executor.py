"""What an executor makes of a function, and its futures."""

from __future__ import annotations

from concurrent import futures
from functools import partial
from typing import Any

import pytest

from taskengine import BadArguments, Cancelled, TaskFailed, task
from taskengine.client.executor import ExecutorFuture, resolve


@task(name="arm.wave")
def wave(*args: Any, **kwargs: Any) -> None: ...


def test_a_task_and_its_name_are_the_same_call() -> None:
    assert resolve(wave, (1,), {"b": 2}) == resolve("arm.wave", (1,), {"b": 2}) == ("arm.wave", (1,), {"b": 2})


def test_a_partial_adds_its_arguments() -> None:
    inner = partial(wave, 1, b=2, c=3)
    assert resolve(partial(inner, 4, c=5), (6,), {"d": 7}) == ("arm.wave", (1, 4, 6), {"b": 2, "c": 5, "d": 7})


@pytest.mark.parametrize("function", [pow, lambda: None, partial(pow, 2), wave.__get__(1).__call__, 7])
def test_any_other_function_is_refused_with_what_to_do(function: Any) -> None:
    with pytest.raises(BadArguments, match=r"put @taskengine\.task on a function"):
        resolve(function)


def sent_future() -> tuple[ExecutorFuture, list[int]]:
    """A future whose call was sent, and the serials of the packages that the engine was asked to cancel."""
    asked: list[int] = []
    future = ExecutorFuture(lambda serial, position: asked.append(serial))
    future.set_running_or_notify_cancel()
    future.serial = 3
    return future, asked


def test_a_cancelled_call_is_cancelled_once_the_engine_has_said_so() -> None:
    future, asked = sent_future()
    ended: list[futures.Future[Any]] = []
    future.add_done_callback(ended.append)
    assert not future.cancel()
    assert (asked, future.cancelled(), ended) == ([3], False, [])
    future.set_exception(Cancelled("cancelled before it began"))
    assert future.cancelled()
    assert ended == [future]
    assert futures.wait([future], 0).done == {future}
    with pytest.raises(futures.CancelledError):
        future.result(0)
    with pytest.raises(futures.InvalidStateError):
        future.set_exception(Cancelled("again"))


def test_waiting_threads_learn_of_it() -> None:
    future, _ = sent_future()
    future.cancel()
    completed = futures.as_completed([future])
    future.set_exception(Cancelled("cancelled before it began"))
    assert next(completed) is future


def test_a_result_that_came_first_stays() -> None:
    future, _ = sent_future()
    future.cancel()
    future.set_result(4)
    assert (future.cancelled(), future.result(0)) == (False, 4)


def test_other_errors_are_errors() -> None:
    failed, _ = sent_future()
    failed.cancel()
    failed.set_exception(TaskFailed("boom"))
    assert isinstance(failed.exception(0), TaskFailed)
    closed, _ = sent_future()
    closed.set_exception(Cancelled("the client was closed"))  # nobody cancelled it
    assert isinstance(closed.exception(0), Cancelled)
