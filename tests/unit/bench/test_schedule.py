from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.matrix.loads import HEAVY, HEAVY_US, even, mixed
from bench.schedule import chunks, makespan
from bench.system import PACKAGE

DURATIONS = st.lists(st.integers(0, 1000).map(float), max_size=60)


@pytest.mark.parametrize(
    ("durations", "workers", "expected"),
    [
        ([], 2, 0.0),
        ([5.0], 2, 5.0),
        ([1.0, 1.0, 1.0], 2, 2.0),
        ([4.0, 1.0, 1.0, 1.0, 1.0], 2, 4.0),
        ([1.0, 1.0, 1.0, 1.0, 4.0], 2, 6.0),
        ([2.0, 3.0], 8, 3.0),
    ],
)
def test_each_goes_to_the_worker_that_is_free_first(durations: list[float], workers: int, expected: float) -> None:
    assert makespan(durations, workers) == expected


@given(DURATIONS, st.integers(1, 8))
def test_a_schedule_is_within_grahams_bounds(durations: list[float], workers: int) -> None:
    least = max([sum(durations) / workers, *durations])
    found = makespan(durations, workers)
    assert least <= found + 1e-6
    assert found <= 2 * least + 1e-6


@given(DURATIONS.filter(bool), st.integers(1, 20), st.integers(1, 8))
def test_chunks_hold_every_task_once(durations: list[float], size: int, workers: int) -> None:
    made = chunks(durations, size, workers)
    assert sum(made) == pytest.approx(sum(durations))
    assert len(made) >= -(-len(durations) // size)


def test_chunks_of_one_are_the_tasks() -> None:
    assert chunks([3.0, 1.0, 2.0], 1, 1) == [3.0, 1.0, 2.0]


def test_loads_are_what_they_say() -> None:
    first, shuffled = mixed(None, 1), mixed(1, 1)
    assert len(first.us) == PACKAGE
    assert first.us[:HEAVY] == [HEAVY_US] * HEAVY
    assert sorted(first.us) == sorted(shuffled.us)
    assert shuffled.us != first.us
    assert shuffled.us == mixed(1, 1).us
    assert len(even(0, 1).us) == PACKAGE
    assert sum(even(1000, 1).us) == 1e6
