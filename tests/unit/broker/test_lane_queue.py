from __future__ import annotations

import itertools

import pytest

from taskengine.broker.chunking import Cut, Run
from taskengine.broker.lane_queue import LaneQueue, Line, Lines, Span
from taskengine.broker.package import Package


def span(job: int, client: bytes = b"c", tasks: int = 10) -> Span:
    package = Package((client,), "s", [], (), bytes(4 * tasks), b"")
    package.flight.job = job
    return Span(package, Run("", 0, tasks, 1, Cut(tasks, 1, 0)), 0, tasks)


def spans_of(line: Line | Lines | LaneQueue) -> list[Span]:
    """Return the waiting tasks, and take them out."""
    return line.clear()


def served(line: Line | Lines | LaneQueue, work: float = 1.0) -> int:
    """Serve the next span one task, and say whose."""
    next_span = line.first()
    assert next_span is not None
    next_span.first += 1
    line.charge(next_span.package, work)
    return next_span.package.flight.job


def test_a_line_keeps_the_order_of_reception() -> None:
    line = Line()
    for job in (1, 2):
        line.add(span(job, tasks=2))
    assert [served(line) for _ in range(4)] == [1, 1, 2, 2]
    assert line.first() is None
    assert not line.crowded()


def test_packages_take_turns() -> None:
    turns = LaneQueue()
    for job in (1, 2, 3):
        turns.add(span(job))
    assert turns.crowded()
    assert [served(turns) for _ in range(6)] == [1, 2, 3, 1, 2, 3]


def test_turns_go_by_the_work_served() -> None:
    turns = LaneQueue()
    turns.add(span(1))
    turns.add(span(2))
    order = [served(turns, work=3.0 if turns.first().package.flight.job == 1 else 1.0) for _ in range(8)]  # type: ignore[union-attr]
    assert order.count(1) == 2


def test_clients_take_turns_however_many_packages_they_have() -> None:
    turns = LaneQueue()
    for job in range(1, 6):
        turns.add(span(job, b"greedy"))
    turns.add(span(9, b"modest"))
    order = [served(turns) for _ in range(10)]
    assert order.count(9) == 5


def test_who_comes_anew_starts_where_the_others_are() -> None:
    turns = LaneQueue()
    turns.add(span(1, tasks=100))
    for _ in range(50):
        served(turns)
    turns.add(span(2, tasks=100))
    order = [served(turns) for _ in range(20)]
    assert order.count(2) in (10, 11)


def test_what_cost_more_than_was_thought_waits_longer() -> None:
    turns = LaneQueue()
    heavy, light = span(1), span(2, b"d")
    turns.add(heavy)
    assert served(turns) == 1
    turns.add(light)
    turns.charge(heavy.package, 1000.0)
    assert [served(turns) for _ in range(10)] == [2] * 10
    assert served(turns) == 1


def test_what_comes_back_to_a_line_goes_first() -> None:
    line, one = Line(), span(1)
    line.add(one)
    one.first = 8
    line.back(Span(one.package, one.run, 3, 5))
    assert [(each.first, each.stop) for each in line.waiting] == [(3, 5), (8, 10)]


def test_what_comes_back_is_served_again() -> None:
    turns, one = LaneQueue(), span(1, tasks=2)
    turns.add(one)
    assert [served(turns), served(turns)] == [1, 1]
    turns.back(Span(one.package, one.run, 1, 2))
    assert served(turns) == 1
    assert turns.first() is None
    assert not turns.crowded()


def test_the_spans_of_a_package_wait_in_its_place_in_order() -> None:
    turns, whole = LaneQueue(), span(1, tasks=9)
    parts = [Span(whole.package, whole.run, first, first + 3) for first in (0, 3, 6)]
    for part in parts[:2]:
        turns.add(part)
    turns.add(span(2))
    assert [served(turns) for _ in range(8)] == [1, 2, 1, 2, 1, 2, 1, 2]
    turns.back(Span(whole.package, whole.run, 2, 3))
    turns.add(parts[2])
    assert [one.first for one in spans_of(turns) if one.package is whole.package] == [2, 4, 6]
    assert turns.first() is None


@pytest.mark.parametrize("kind", [Line, LaneQueue])
def test_what_is_revoked_is_gone(kind: type[Line] | type[LaneQueue]) -> None:
    line = kind()
    one, other = span(1), span(2)
    for each in (one, other):
        line.add(each)
    assert line.revoke([one.package]) == [one]
    assert line.revoke([one.package, span(7, b"stranger").package]) == []
    assert line.first() is other
    assert spans_of(line) == [other]


@pytest.mark.parametrize("kind", [Line, LaneQueue])
def test_the_first_span_is_parted_in_its_place(kind: type[Line] | type[LaneQueue]) -> None:
    line = kind()
    one, other = span(1), span(2)
    for each in (one, other):
        line.add(each)
    assert line.first() is one
    line.split(one, 4)
    one.first = 4
    rest = line.first()
    assert rest is not None
    while rest.package is not one.package:
        served(line)
        rest = line.first()
        assert rest is not None
    assert (rest.first, rest.stop) == (4, 10)


def test_many_small_packages_of_a_client_leave_a_large_one_its_share() -> None:
    turns, small = LaneQueue(), itertools.count(2)
    large = span(1, b"modest", tasks=1000)
    turns.add(large)
    for _ in range(20):
        turns.add(span(next(small), b"greedy", tasks=1))
    for _ in range(400):
        if served(turns) != 1:
            turns.add(span(next(small), b"greedy", tasks=1))
    assert large.first == 200


def test_the_chunks_of_a_span() -> None:
    run = Run("", 5, 16, 1, Cut(3, 3, 2, first=5))  # 4, 4 and 3 tasks
    part = Span(Package((), "s", [], (), b"", b""), run, 7, 16)
    assert part.chunks() == 3
    assert [part.end(number) for number in (1, 2, 3)] == [9, 13, 16]


def test_lines_take_turns_of_clients_and_keep_the_order_of_each() -> None:
    lines = Lines()
    for job in range(1, 6):
        lines.add(span(job, b"greedy", tasks=1))
    assert not lines.crowded()
    for job in (6, 7):
        lines.add(span(job, b"modest", tasks=1))
    assert lines.crowded()
    assert [served(lines) for _ in range(7)] == [1, 6, 2, 7, 3, 4, 5]
    assert lines.first() is None
    assert not lines.waiting


def test_lines_go_by_the_work_served() -> None:
    lines = Lines()
    for job in range(1, 4):
        lines.add(span(job, b"heavy", tasks=1))
        lines.add(span(10 + job, b"light", tasks=1))
    order = [served(lines, work=5.0 if lines.first().package.flight.job < 10 else 1.0) for _ in range(6)]  # type: ignore[union-attr]
    assert order == [1, 11, 12, 13, 2, 3]


def test_what_comes_back_to_lines_stands_where_it_was_received() -> None:
    lines = Lines()
    first, second, third = (span(job, b"client", tasks=2) for job in (1, 2, 3))
    lines.add(second)
    lines.add(third)
    lines.back(first)
    lines.split(first, 1)
    assert [served(lines) for _ in range(6)] == [1, 1, 2, 2, 3, 3]


def test_lines_give_up_packages_and_all() -> None:
    lines = Lines()
    spans = [span(job, client) for job, client in enumerate((b"a", b"a", b"b"), start=1)]
    for each in spans:
        lines.add(each)
    assert lines.revoke([spans[0].package, span(9, b"unknown").package]) == spans[:1]
    assert spans_of(lines) == spans[1:]
    assert lines.first() is None
