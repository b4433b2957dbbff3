from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.chunking import Chunks, Cut, cut, spread


def sizes(pieces: Cut) -> list[int]:
    starts = [pieces.start(number) for number in range(pieces.chunks + 1)]
    return [stop - first for first, stop in pairwise(starts)]


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
    held = [task for number, count in enumerate(sizes(pieces)) for task in [number] * count]
    assert [pieces.number(task) for task in range(tasks)] == held
    assert all(1 <= count <= size for count in sizes(pieces))
    assert max(sizes(pieces), default=0) - min(sizes(pieces), default=0) <= 1
    assert pieces.chunks % workers == 0 or pieces.chunks == tasks


@given(
    lanes=st.lists(st.integers(1, 120), min_size=1, max_size=4),
    size=st.none() | st.integers(1, 60),
    span=st.tuples(st.integers(0, 480), st.integers(0, 480)),
)
def test_a_chunk_has_ended_with_its_last_task(lanes: list[int], size: int | None, span: tuple[int, int]) -> None:
    chunks = Chunks([(str(lane), tasks) for lane, tasks in enumerate(lanes)], size)
    first, stop = sorted(min(position, sum(lanes)) for position in span)
    ends = [(part, end) for part, _, end in chunks.between(0, sum(lanes))]
    assert list(chunks.ended(first, stop)) == [part for part, end in ends if first < end <= stop]


def one_by_one(chunks: int, cost: float, loads: list[float], rooms: list[float]) -> list[int]:
    """Does the same as `spread`, chunk by chunk."""
    counts = [0] * len(loads)
    for _ in range(chunks):
        open_to_more = [worker for worker, room in enumerate(rooms) if counts[worker] * cost < room]
        if not open_to_more:
            break
        counts[min(open_to_more, key=lambda worker: loads[worker] + counts[worker] * cost)] += 1
    return counts


@given(
    chunks=st.integers(0, 300),
    cost=st.integers(1, 9),
    workers=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 400)), min_size=1, max_size=6),
)
def test_chunks_go_where_one_by_one_they_would_go(chunks: int, cost: int, workers: list[tuple[int, int]]) -> None:
    loads, rooms = [[float(figure) for figure in figures] for figures in zip(*workers, strict=True)]
    counts, expected = spread(chunks, cost, loads, rooms), one_by_one(chunks, cost, loads, rooms)
    assert sum(counts) == sum(expected)
    heights = [[load + count * cost for load, count in zip(loads, c, strict=True)] for c in (counts, expected)]
    # of several that are least loaded either may be next, so the same heights may stand elsewhere
    assert sorted(heights[0]) == sorted(heights[1]) or max(heights[0]) <= max(heights[1])
    assert all(count * cost < room + cost for count, room in zip(counts, rooms, strict=True))


def test_equal_workers_share_equally() -> None:
    assert spread(80, 2300.0, [0.0, 0.0], [1e6, 1e6]) == [40, 40]
    assert spread(3, 1.0, [0.0, 5.0], [1e6, 1e6]) == [3, 0]
    assert spread(10, 300.0, [0.0], [1000.0]) == [4]
