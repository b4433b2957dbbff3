from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.chunking import Cut, cut


def sizes(pieces: Cut) -> list[int]:
    bounds = [pieces.bounds(part) for part in range(1, pieces.chunks + 1)]
    return [stop - first for first, stop in bounds]


def test_the_seeds_sample_is_eight_chunks() -> None:
    assert sizes(cut(63, 10, 2)) == [8] * 7 + [7]


def test_the_headline_is_eighty_chunks_of_fifty() -> None:
    assert sizes(cut(4000, 50, 2)) == [50] * 80


@pytest.mark.parametrize(("tasks", "expected"), [(0, []), (1, [1]), (2, [1, 1]), (11, [6, 5]), (21, [6, 5, 5, 5])])
def test_small_and_one_modulo_the_size(tasks: int, expected: list[int]) -> None:
    assert sizes(cut(tasks, 10, 2)) == expected


def test_chunking_off_keeps_the_package_whole() -> None:
    assert sizes(cut(4001, None, 2)) == [4001]


@given(tasks=st.integers(0, 5000), size=st.integers(1, 600), workers=st.integers(1, 9))
def test_every_task_is_in_one_chunk_and_none_is_too_large(tasks: int, size: int, workers: int) -> None:
    pieces = cut(tasks, size, workers)
    bounds = [pieces.bounds(part) for part in range(1, pieces.chunks + 1)]
    assert [position for first, stop in bounds for position in range(first, stop)] == list(range(tasks))
    assert all(1 <= count <= size for count in sizes(pieces))
    assert max(sizes(pieces), default=0) - min(sizes(pieces), default=0) <= 1
    assert pieces.chunks % workers == 0 or pieces.chunks == tasks
