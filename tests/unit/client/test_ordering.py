"""Results in the order of the calls."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from taskengine import BadArguments, TaskFailed
from taskengine.client.ordering import flattened, in_order


class Calls:
    """Submitted calls, in order."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.rows: list[tuple[Any, ...]] = []

    def submit(self, *row: Any) -> Future[Any]:
        self.rows.append(row)
        self.futures.append(Future())
        return self.futures[-1]


def test_all_rows_are_submitted_at_once_and_results_come_in_order() -> None:
    calls = Calls()
    results = in_order(calls.submit, [(1, 2), (3, 4)], None)
    assert calls.rows == [(1, 2), (3, 4)]
    calls.futures[1].set_result("second")
    calls.futures[0].set_result("first")
    assert list(results) == ["first", "second"]


def test_endless_rows_are_read_as_results_are_taken() -> None:
    calls = Calls()
    results = in_order(calls.submit, ((number,) for number in itertools.count()), 3)
    assert calls.rows == [(0,), (1,), (2,)]
    for taken in range(5):
        calls.futures[taken].set_result(taken)
        assert next(results) == taken
        assert len(calls.rows) == taken + 4


def test_no_rows() -> None:
    assert list(in_order(Calls().submit, [], 3)) == []


def test_an_error_is_raised_in_its_place_and_cancels_what_is_left() -> None:
    calls = Calls()
    results = in_order(calls.submit, [(1,), (2,), (3,)], None)
    calls.futures[0].set_result("first")
    calls.futures[1].set_exception(TaskFailed("boom"))
    assert next(results) == "first"
    with pytest.raises(TaskFailed):
        next(results)
    assert calls.futures[2].cancelled()
    assert list(results) == []


def test_a_closed_iterator_cancels_what_is_left() -> None:
    calls = Calls()
    results = in_order(calls.submit, [(1,), (2,)], None)
    calls.futures[0].set_result("first")
    next(results)
    assert isinstance(results, Generator)
    results.close()
    assert calls.futures[1].cancelled()


def test_a_result_that_is_late_is_cancelled() -> None:
    calls = Calls()
    with pytest.raises(TimeoutError):
        next(in_order(calls.submit, [(1,), (2,)], None, timeout=0))
    assert all(future.cancelled() for future in calls.futures)


def test_a_row_that_cannot_be_submitted_cancels_those_before_it() -> None:
    calls = Calls()

    def rows() -> Iterator[tuple[int]]:
        yield (1,)
        raise LookupError

    with pytest.raises(LookupError):
        in_order(calls.submit, rows(), None)
    assert calls.futures[0].cancelled()


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "x"])
def test_a_buffersize_out_of_range_is_refused(size: Any) -> None:
    with pytest.raises(BadArguments, match="buffersize is a positive int"):
        in_order(Calls().submit, [], size)


def test_lists_are_flattened_up_to_the_first_error() -> None:
    entries = flattened(iter([[1, 2], [], [3, TaskFailed("boom"), 4]]))
    assert [next(entries) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(TaskFailed):
        next(entries)
