from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.cancellation import CancelledTasks
from taskengine.errors import Overloaded
from taskengine.protocol.limits import MAX_RUNS

TASKS = 24
positions = st.integers(0, TASKS - 1)
events = st.lists(st.one_of(st.lists(positions), st.tuples(positions, positions)), max_size=20)


@given(events)
def test_it_knows_what_is_unwanted_and_has_no_answer(events: list[list[int] | tuple[int, int]]) -> None:
    unwanted, model = CancelledTasks(TASKS), set[int]()
    for event in events:
        if isinstance(event, list):
            assert unwanted.add(event) == (not model >= set(event))
            model |= set(event)
        else:
            first, stop = min(event), max(event) + 1
            unwanted.answer(first, stop)
            model -= set(range(first, stop))
        assert unwanted.left == len(model)
        for first in range(TASKS):
            inside = [position in model for position in range(first, TASKS)]
            assert unwanted.any(first, TASKS) == any(inside)
            assert unwanted.begin(first, TASKS) == first + (inside.index(True) if any(inside) else len(inside))
            assert unwanted.end(first, TASKS) == first + (len(inside) if all(inside) else inside.index(False))


def test_places_are_limited_and_not_tasks() -> None:
    unwanted = CancelledTasks(3 * MAX_RUNS)
    assert unwanted.add(range(0, 2 * MAX_RUNS, 2))
    with pytest.raises(Overloaded, match=str(MAX_RUNS)):
        unwanted.add([2 * MAX_RUNS + 5])
    assert unwanted.add(range(2 * MAX_RUNS))
    assert unwanted.left == 2 * MAX_RUNS


def test_runs_count_only_what_is_new() -> None:
    unwanted = CancelledTasks(10)
    unwanted.add([2, 3])
    assert unwanted.add_runs([(0, 4), (6, 8)])
    assert unwanted.left == 6
    assert not unwanted.add_runs([(6, 8)])
    assert [unwanted.begin(4, 10), unwanted.end(6, 10)] == [6, 8]
