"""What is wrong with a stream is found, and nothing where nothing is."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import Book, judge
from tests.chaos.readings import Reading, unclosed, without_closings


def reading_of(count: int, *values: str) -> Reading:
    """A reading of the stream `A` of so many values, of which these came."""
    reading = Reading("A", count)
    for value in values:
        reading.take(value)
    return reading


def test_all_values_and_one_end_are_right() -> None:
    reading = reading_of(2, "A/0", "A/1")
    reading.end()
    assert reading.wrong == []
    assert reading.came == 2


def test_an_error_may_come_at_any_time() -> None:
    reading = reading_of(2, "A/0")
    reading.end("WorkerLost")
    assert reading.wrong == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["A/1"], "'A/1' came where value 0 of 2 of A was due"),
        (["A/0", "A/0"], "'A/0' came where value 1 of 2 of A was due"),
        (["B/0"], "'B/0' came where value 0 of 2 of A was due"),
        (["A/0", "A/1", "A/2"], "'A/2' came where value 2 of 2 of A was due"),
    ],
)
def test_a_value_that_was_not_due_is_found(values: list[str], said: str) -> None:
    assert reading_of(2, *values).wrong == [said]


def test_what_comes_after_the_end_is_found() -> None:
    reading = reading_of(1, "A/0")
    reading.end()
    reading.take("A/1")
    reading.end("Cancelled")
    assert reading.wrong == ["'A/1' came after the end", "A ended again (Cancelled)"]


def test_an_end_before_the_last_value_is_found() -> None:
    reading = reading_of(2, "A/0")
    reading.end()
    assert reading.wrong == ["an end came after 1 of 2 values of A"]


def test_an_error_of_the_task_comes_after_all_values() -> None:
    reading = reading_of(2, "A/0")
    reading.end("TaskFailed", after_all=True)
    assert reading.wrong == ["TaskFailed came after 1 of 2 values of A"]


def test_the_judge_has_what_is_wrong_and_counts_values() -> None:
    book = Book("A")
    id = book.offer(0.0, "stream")
    reading = book.read(id, 1)
    reading.take("A-0/0")
    reading.take("A-0/0")
    book.answer(id, 1.0, id)
    judgement = judge([book], [["A-0"]], unclosed=["A-0"])
    assert judgement.values == 2
    assert judgement.broken == [
        "1 values or ends of streams that are wrong: 'A-0/0' came where value 1 of 1 of A-0 was due",
        "1 generators that were never closed: A-0 (stream at 0.00 s, sent 1 times: 'A-0')",
    ]


def test_a_generator_that_was_not_closed_is_found() -> None:
    runs = {7: ["A-0", "closed:A-0", "A-1", "B-0"]}
    assert unclosed(runs, {"A-0", "A-1"}, set(), {7}) == ["A-1"]
    assert unclosed(runs, {"A-0", "A-1"}, set(), set()) == ["A-1"], "it ran another task after that one, and died then"


def test_a_process_that_dies_takes_its_generators_with_it() -> None:
    runs = {7: ["A-0", "A-1"], 8: ["A-2", "A-3"]}
    assert unclosed(runs, {"A-0", "A-1", "A-2", "A-3"}, {"A-0", "A-1"}, set()) == ["A-2"]


def test_the_ends_of_generators_are_no_runs() -> None:
    assert without_closings([["A-0", "closed:A-0", "A-1"]]) == [["A-0", "A-1"]]
