"""What of a batch is claimed runs, and what is taken back does not."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Any

import pytest

from taskengine import _fastpath
from taskengine._fastpath import ProgressPage
from taskengine.broker.legacy_json import TaskFrames
from taskengine.broker.package import encode_head
from taskengine.errors import UnknownTask
from taskengine.protocol import layouts
from tests.batches import Failures, join_frames, no_error, no_foreign, section_of, task

NUMBER = 4
LONG = 20


@pytest.fixture
def page() -> ProgressPage:
    return ProgressPage(mmap.mmap(-1, layouts.PROGRESS_BYTES))


def run(page: ProgressPage, function: Callable[..., Any], *sizes: int, chunk: int = 3) -> list[tuple[int, list[Any]]]:
    """Run a batch of slices of so many tasks each; the first position and the values of each entry of the answer."""
    package = join_frames([task(0, n) for n in range(sum(sizes))])
    sections, first = [], 0
    for job, size in enumerate(sizes):
        sections.append(section_of(package, first, first + size, sizes=(min(chunk, size), 0, chunk), job=job))
        first += size
    batch = _fastpath.pack_batch(NUMBER, 0, sections)
    answer = _fastpath.run_batch(batch, lambda head: [function], Failures(), no_foreign, None, page)
    return [
        (first, _fastpath.unpack(body, stop - first, no_error))
        for _, first, stop, _, _, body in _fastpath.read_answer(answer)
    ]


def test_a_batch_that_was_offered_runs_whole(page: ProgressPage) -> None:
    page.offer(NUMBER, 12)
    assert run(page, lambda n: n, 10, 2) == [(0, list(range(10))), (10, [10, 11])]
    assert page.unclaimed(NUMBER) == 0


def test_a_batch_that_was_not_offered_runs_whole_and_has_nothing_to_take_back(page: ProgressPage) -> None:
    page.offer(NUMBER + 2, 1)  # in the same slot
    assert page.unclaimed(NUMBER) == 0
    assert run(page, lambda n: n, 5) == [(0, [0, 1, 2, 3, 4])]


def test_what_was_taken_back_before_the_batch_began_does_not_run(page: ProgressPage) -> None:
    page.offer(NUMBER, 12)
    assert page.unclaimed(NUMBER) == 12
    assert page.take_back(NUMBER, 5) == 7
    assert page.unclaimed(NUMBER) == 7
    assert run(page, lambda n: n, 10, 2) == [(0, list(range(7)))]


def test_a_batch_of_which_all_was_taken_back_has_an_empty_answer(page: ProgressPage) -> None:
    page.offer(NUMBER, 3)
    assert page.take_back(NUMBER, layouts.MAX_OFFERED) == 0
    assert run(page, lambda n: n, 3) == []


def test_what_is_taken_back_while_a_task_runs_does_not_run(page: ProgressPage) -> None:
    """At any size of chunks, in the middle of one too."""
    page.offer(NUMBER, 9)
    left: list[int] = []

    def slow(n: int) -> int:
        if n == 1:
            left.append(page.take_back(NUMBER, 4))
        return n

    assert run(page, slow, 9, chunk=9) == [(0, [0, 1, 2, 3, 4])]
    assert left == [5]


def test_a_task_that_runs_is_not_taken_back(page: ProgressPage) -> None:
    page.offer(NUMBER, 2)
    left: list[int] = []

    def slow(n: int) -> int:
        left.append(page.take_back(NUMBER, 9))
        return n

    assert run(page, slow, 2) == [(0, [0])]
    assert left == [1]


def test_a_long_task_leaves_all_after_it_and_short_ones_are_claimed_together(page: ProgressPage) -> None:
    page.offer(NUMBER, 400)
    seen: list[int] = []

    def note(n: int) -> None:
        seen.append(page.unclaimed(NUMBER))
        began = time.monotonic_ns()
        while n == LONG and time.monotonic_ns() - began < 40 * layouts.STRIDE_NS:
            pass

    run(page, note, 400, chunk=400)
    assert seen[0] == 399, "the first is claimed alone"
    assert len(set(seen)) < 200, "most are claimed with others"
    behind = next(place for place in range(LONG, 400) if seen[place] != seen[LONG])
    assert seen[behind] == seen[LONG] - 1, "after a long task the next is claimed alone"


def test_frames_of_wire_0_1_are_taken_back_by_the_chunk(page: ProgressPage) -> None:
    ran: list[int] = []

    def count(n: int) -> int:
        ran.append(n)
        if n == 0:
            page.take_back(NUMBER, 2)
        return n

    frames = [b'{"task": "count", "args": [%d], "pack": "p%d"}' % (n, n) for n in range(6)]
    section = section_of(
        join_frames(frames), format=layouts.Format.LEGACY_JSON, head=encode_head("s", b'"p"'), sizes=(2, 0, 2)
    )
    page.offer(NUMBER, 6)
    answer = _fastpath.run_batch(
        _fastpath.pack_batch(NUMBER, 0, [section]),
        lambda head: [],
        Failures(),
        no_foreign,
        TaskFrames({"count": count}.get, lambda name, error: UnknownTask(name)),
        page,
    )
    assert ran == [0, 1, 2, 3]
    entries = _fastpath.read_answer(answer)
    assert [entry[1:3] for entry in entries] == [(0, 2), (2, 4)]
    assert all(b'"size":2' in body.replace(b" ", b"") for *_, body in entries)


def test_tasks_of_another_format_are_claimed_by_the_chunk(page: ProgressPage) -> None:
    ran: list[tuple[int, int]] = []

    def foreign(format: int, head: bytes, first: int, ends: list[int], body: bytes, room: int) -> tuple[bytes, int]:
        ran.append((first, first + len(ends)))
        page.take_back(NUMBER, 4)
        return bytes(len(ends)), 0

    section = section_of(join_frames([b"x"] * 6), format=layouts.Format.DATA, sizes=(2, 0, 2))
    page.offer(NUMBER, 6)
    answer = _fastpath.run_batch(
        _fastpath.pack_batch(NUMBER, 0, [section]), lambda head: [], Failures(), foreign, None, page
    )
    assert [entry[1:3] for entry in _fastpath.read_answer(answer)] == [(0, 2)]
    assert ran == [(0, 2)]
