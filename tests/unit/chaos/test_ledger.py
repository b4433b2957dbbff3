"""The judgement of chaos finds every breach of a guarantee, and nothing where none is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.ledger import Book, judge


def book_of(*outcomes: object, **how: Any) -> Book:
    """A book with a task for each outcome: a result ("own" for its own id), an error in a list, or None for nothing."""
    book = Book("A")
    for number, outcome in enumerate(outcomes):
        id = book.offer(float(number), "note", **how)
        if isinstance(outcome, list):
            book.fail(id, number + 0.5, *outcome)
        elif outcome is not None:
            book.answer(id, number + 0.5, id if outcome == "own" else outcome)
    return book


def broken(book: Book, *runs: list[str], **how: Any) -> list[str]:
    return judge([book], runs, **how).broken


def test_results_and_legitimate_errors_break_nothing() -> None:
    book = book_of("own", ["WorkerLost", "TASK-1"], ["EngineUnreachable"], "own")
    judgement = judge([book], [["A-0", "A-1"], ["A-3"]])
    assert judgement.broken == []
    assert (judgement.offered, judgement.results) == (4, 2)
    assert judgement.errors == {"WorkerLost": 1, "EngineUnreachable": 1}
    assert judgement.longest_s == {"A": 0.5}


def test_ids_are_unique() -> None:
    book = book_of("own", "own")
    assert list(book.offers) == ["A-0", "A-1"]


@pytest.mark.parametrize(
    ("outcomes", "runs", "said"),
    [
        ((None,), [["A-0"]], "1 tasks without an answer: A-0 (note at 0.00 s, sent 1 times: no answer)"),
        (("A-1", "own"), [["A-0", "A-1"]], "1 results of another task: A-0 (note at 0.00 s, sent 1 times: 'A-1')"),
        (("own",), [["A-0"], ["A-0"]], "1 tasks run more often than they may: A-0"),
        ((["WorkerLost"],), [["A-0"], ["A-0"]], "1 tasks run more often than they may: A-0"),
        (("own",), [], "1 tasks reported done that never ran: A-0"),
        (("own",), [["A-0", "B-7"]], "1 tasks run that nobody offered: B-7"),
        ((["UnknownTask"],), [], "1 errors that are no legitimate answer: A-0 UnknownTask"),
        ((["WorkerLost", "TASK-9"],) * 2, [], "1 tasks beside the one that a dead worker ran: TASK-9: A-0, A-1"),
    ],
)
def test_each_breach_is_found(outcomes: tuple[object, ...], runs: list[list[str]], said: str) -> None:
    (line,) = broken(book_of(*outcomes), *runs)
    assert line.startswith(said)


def test_a_task_that_is_answered_twice_is_found() -> None:
    book = book_of("own")
    book.answer("A-0", 1.0, "A-0")
    (line,) = broken(book, ["A-0"])
    assert line.startswith("1 tasks answered more than once: A-0")


def test_a_reply_that_nobody_asked_for_is_found() -> None:
    book = book_of()
    book.stray("SEED 7")
    assert broken(book) == ["1 replies that nobody asked for: SEED 7"]


def test_a_client_that_hangs_is_found() -> None:
    assert broken(book_of(), hung=["A"]) == ["1 clients that hang: A"]


def test_an_idempotent_task_may_run_twice_for_each_time_that_it_was_sent() -> None:
    book = book_of("own", idempotent=True)
    assert broken(book, ["A-0"] * 2) == []
    assert len(broken(book, ["A-0"] * 3)) == 1
    book.resend("A-0")
    assert broken(book, ["A-0"] * 4) == []
    assert len(broken(book, ["A-0"] * 5)) == 1


def test_what_writes_nothing_down_need_not_have_run() -> None:
    assert broken(book_of("own", writes=False)) == []


def test_an_error_may_be_expected_of_a_task() -> None:
    assert broken(book_of(["TaskFailed"], expected="TaskFailed"), ["A-0"]) == []


@pytest.mark.parametrize(
    ("loses", "deaths", "excused"),
    [
        *[(True, [5.0], 1), (True, [9.0], 1), (True, [14.9], 1), (True, [15.1], 0)],
        *[(True, [2.9], 0), (True, [], 0), (False, [5.0], 0)],
    ],
)
def test_wire_0_1_may_lose_replies_only_with_the_router(loses: bool, deaths: list[float], excused: int) -> None:
    """Offered at 5 s and given up at 12 s; a death is noticed within 2 s, a router that stands still killed in 3 s."""
    book = Book("SEED", loses_with_router=loses)
    id = book.offer(5.0, "note")
    book.give_up(id, 12.0)
    judgement = judge([book], [], router_deaths=deaths, notice_s=2.0, frozen_s=3.0)
    assert judgement.excused == excused
    assert bool(judgement.broken) != bool(excused)


def test_a_late_reply_is_not_lost() -> None:
    book = Book("A")
    id = book.offer(0.0, "note")
    book.give_up(id, 3.0)
    book.answer(id, 4.0, id)
    judgement = judge([book], [[id]])
    assert judgement.broken == []
    assert judgement.late == 1


def test_a_lane_with_one_worker_runs_in_order() -> None:
    book = Book("A")
    for name in ("lane", "note", "lane", "lane"):
        id = book.offer(0.0, name)
        book.answer(id, 1.0, id)
    assert broken(book, ["A-0", "A-3"], ["A-2"], ["A-1"], in_order="lane") == []
    (line,) = broken(book, ["A-0", "A-3", "A-2", "A-1"], in_order="lane")
    assert line.startswith("1 tasks of a lane with one worker out of order: A-2")


def test_a_line_shows_a_few_of_many() -> None:
    (line,) = broken(book_of(*[None] * 8))
    assert line.startswith("8 tasks without an answer: A-0 (")
    assert line.endswith(" and 3 more")
