"""Workers that run many tasks at once, and what the broker gives them."""

from __future__ import annotations

import pytest

from taskengine.broker.broker import Broker
from taskengine.broker.lane import Batch
from taskengine.broker.recovery import BEGUN
from taskengine.errors import Overloaded, ProtocolError, TaskTimeout
from taskengine.protocol.messages import Priority, TaskInfo
from tests.brokers import ended
from tests.packages import answer, answers, package

MOST = 4


def broker(workers: int = 1) -> Broker:
    made = Broker(10, {"": workers}, concurrency={"": MOST})
    for number in range(workers):
        made.join(f"w{number}", "", cancels=True)
    return made


def firsts(batches: list[Batch]) -> list[int]:
    return [slice.first for batch in batches for slice in batch.slices]


def test_each_place_gets_one_task_and_answers_when_it_likes() -> None:
    made, sent = broker(), package(6)
    made.accept(sent)
    batches = made.dispatch()
    assert firsts(batches) == [0, 1, 2, 3]
    assert all(batch.slice_ns == 0 for batch in batches)
    assert list(made.workers.held("w0")) == [batch.number for batch in batches]
    assert made.finish("w0", answers(batches[2]), batches[2].number) == []
    [fifth] = made.dispatch()
    assert firsts([fifth]) == [4]
    assert list(made.workers.held("w0")) == [batches[n].number for n in (0, 1, 3)] + [fifth.number]
    for batch in (fifth, *batches[:2], batches[3]):
        assert made.finish("w0", answers(batch), batch.number) == []
    [last] = made.dispatch()
    assert made.finish("w0", answers(last), last.number) == [sent]
    assert sent.results.join() == ended(*[""] * 6)
    assert made.workers.is_free("w0")


def test_tasks_are_spread_over_the_workers_and_clients_take_turns() -> None:
    made = broker(workers=2)
    many, few = package(20, client=b"a"), package(3, client=b"b")
    made.accept(many)
    made.accept(few)
    batches = made.dispatch()
    assert [batch.worker for batch in batches] == ["w0", "w1"] * MOST
    owners = [slice.package for batch in batches for slice in batch.slices]
    assert owners.count(few) == 3


def test_an_urgent_task_takes_the_next_place() -> None:
    made, slow, urgent = broker(), package(9), package(1)
    urgent.priority = Priority.URGENT
    made.accept(slow)
    batches = made.dispatch()
    made.accept(urgent)
    assert made.dispatch() == []
    assert made.recalls() == [], "its worker hands back nothing"
    made.finish("w0", answers(batches[0]), batches[0].number)
    [batch] = made.dispatch()
    assert batch.slices[0].package is urgent


@pytest.mark.parametrize("number", [None, 0, 7])
def test_an_answer_without_a_known_number_is_refused(number: int | None) -> None:
    made, sent = broker(), package(1)
    made.accept(sent)
    [batch] = made.dispatch()
    with pytest.raises(ProtocolError, match="not given"):
        made.finish("w0", answers(batch), number)
    other = Broker(10, {"": 1})
    other.join("w0", "")
    other.accept(package(1))
    [batch] = other.dispatch()
    with pytest.raises(ProtocolError, match="not given"):
        other.finish("w0", answers(batch), batch.number)


def test_an_answer_to_another_task_is_refused() -> None:
    made = broker()
    made.accept(package(2))
    one, two = made.dispatch()
    with pytest.raises(ProtocolError, match="other tasks"):
        made.finish("w0", answers(one), two.number)


def test_a_result_that_is_too_large_is_the_failure_of_its_task_alone() -> None:
    made, sent = broker(), package(2)
    made.accept(sent)
    one, two = made.dispatch()
    assert made.give_up("w0", Overloaded("too large", retry_after=None), two.number) == []
    assert made.finish("w0", answers(one), one.number) == [sent]
    assert sent.results.join() == ended("", "Overloaded")


def test_of_tasks_that_ran_together_only_the_overdue_one_has_timed_out() -> None:
    made, sent = broker(), package(6)
    made.accept(sent)
    batches = made.dispatch()
    made.finish("w0", answers(batches[0]), batches[0].number)
    accounts = [BEGUN, BEGUN, None]
    said = []

    def timed_out(task: str) -> TaskTimeout:
        said.append(task)
        return TaskTimeout("it took too long")

    assert made.leave("w0", accounts, timed_out, overdue=[batches[2].number]) == []
    assert said == ["plain"]
    made.join("w1", "")
    left = made.dispatch()
    assert firsts(left) == [3, 4, 5]
    for batch in left:
        whole = made.finish("w1", answers(batch), batch.number)
    assert whole == [sent]
    assert sent.results.join() == ended("", "WorkerLost", "TaskTimeout", "", "", "")


def test_a_cancel_goes_to_the_workers_that_can_cancel() -> None:
    for cancels in True, False:
        made = Broker(10, {"": 1})
        made.join("w0", "", cancels=cancels)
        sent = package(4)
        made.accept(sent)
        made.dispatch()
        made.withdrawals.cancel(b"client", "serial", [1, 2])
        made.revoke()
        job = sent.flight.job
        assert made.workers.cancellations() == ([("w0", [(job, 1, 3)])] if cancels else [])
        assert made.workers.cancellations() == []
        made.withdrawals.cancel(b"client", "serial")
        made.revoke()
        made.workers.leave("w0")
        assert made.workers.cancellations() == [], "the worker is gone"


def test_what_is_late_is_still_cancelled_where_it_runs() -> None:
    made, sent = broker(), package(2)
    sent.deadline = 1.0
    made.accept(sent)
    made.dispatch()
    assert made.expire(2.0) == []
    assert made.workers.cancellations() == []
    made.withdrawals.cancel(b"client", "serial", [1])
    made.revoke()
    assert made.workers.cancellations() == [("w0", [(sent.flight.job, 1, 2)])]
    made.withdrawals.cancel(b"client", "serial")
    made.revoke()
    assert made.workers.cancellations() == [("w0", [(sent.flight.job, 0, 1), (sent.flight.job, 1, 2)])]


def test_a_part_of_the_lane_has_the_same_places() -> None:
    made = broker(workers=2)
    made.availability.learn([TaskInfo("t", "", "()", "", None, False, "robot")])
    made.join("w2", "", ["robot"])
    made.availability.settle()
    lane = made.availability.route(TaskInfo("t", "", "()", "", None, False, "robot"))
    assert lane != ""
    made.accept(package(20, lanes=[(lane, 20)]))
    batches = made.dispatch()
    assert len(batches) == 2 * MOST
    assert {batch.worker for batch in batches} == {"w0", "w1"}
    assert answer(batches[0].slices[0], 0, 1)[1:3] == (0, 1)
