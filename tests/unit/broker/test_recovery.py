"""Answers of workers, and the tasks that dead workers leave."""

from __future__ import annotations

import pytest

from taskengine.broker.broker import Broker
from taskengine.broker.recovery import SENSELESS, Account
from taskengine.broker.tuning import DEATHS
from taskengine.errors import ProtocolError, TaskEngineError, TaskTimeout
from tests.brokers import broker, ended, run_all
from tests.packages import answer, answers, package


def test_what_a_dead_worker_had_done_is_kept_and_what_it_had_not_begun_runs_elsewhere() -> None:
    made = broker()
    first = package(40)
    made.accept(first)
    dead, alive = made.dispatch()
    (slice,) = dead.slices
    done = answer(slice, slice.first, slice.first + 4)
    assert made.leave(dead.worker, [Account([], done, (first.flight.job, slice.first + 4))]) == []
    made.finish(alive.worker, answers(alive))
    assert run_all(made) == [first]
    kinds = ["WorkerLost" if position == slice.first + 4 else "" for position in range(40)]
    assert first.results.join() == ended(*kinds)
    assert first.results.failed == 1
    assert made.leave(dead.worker, []) == []


def test_a_batch_that_was_not_begun_runs_elsewhere_in_its_place() -> None:
    made = broker(workers=1)
    run_all(made)
    first = package(20)
    made.accept(first)
    (batch,) = made.dispatch()
    assert list(made.workers.held(batch.worker)) == [batch.number]
    assert made.leave(batch.worker, [None]) == []
    made.join("w9", "")
    assert run_all(made) == [first]
    assert first.results.join() == ended(*[""] * 20)


def test_a_chunk_whose_workers_died_twice_before_it_began_is_lost_and_its_neighbours_run() -> None:
    """A chunk that kills the worker that reads it went from worker to worker for ever."""
    made = broker(workers=1)
    run_all(made)
    first, other = package(20), package(3)
    made.accept(first)
    made.accept(other)
    for life in range(DEATHS):
        [batch, *_] = made.dispatch()
        assert batch.slices[0].first == 0
        assert made.leave(batch.worker, [None] * len(made.workers.held(batch.worker))) == []
        made.join(f"next{life}", "")
    assert set(run_all(made)) == {first, other}
    assert first.results.join() == ended(*["WorkerLost"] * 10, *[""] * 10)
    assert other.results.join() == ended("", "", "")


@pytest.mark.parametrize("how", ["a reload", "another connection", "a task that ran"])
def test_a_chunk_is_blamed_for_no_other_death(how: str) -> None:
    made = broker(workers=1)
    run_all(made)
    first = package(10)
    made.accept(first)
    for life in range(4):
        [batch, *_] = made.dispatch()
        head = batch.slices[0]
        account: Account | None = (
            Account([], None, (first.flight.job, head.first)) if how == "a task that ran" else None
        )
        if how == "a reload":
            made.workers.retire(batch.worker)
        assert made.leave(batch.worker, [account], is_dead=how != "another connection") == []
        made.join(f"next{life}", "")
    assert run_all(made) == [first]
    lost = 4 if how == "a task that ran" else 0
    assert first.results.join() == ended(*["WorkerLost"] * lost, *[""] * (10 - lost))


@pytest.mark.parametrize("marked", ["package", "task"])
def test_an_idempotent_task_is_given_to_one_other_at_most(marked: str) -> None:
    made = Broker(10, {"": 1}, {"again"} if marked == "task" else ())
    first = package(3)
    first.idempotent = marked == "package"
    first.name = "again"
    made.accept(first)
    for life in range(DEATHS):
        assert not first.results.held
        made.join(f"w{life}", "")
        (batch,) = made.dispatch()
        assert (batch.slices[0].first, batch.slices[0].stop) == (0, 3)
        assert made.leave(f"w{life}", [Account([], None, (first.flight.job, 0))]) == []
    made.join("w3", "")
    assert run_all(made) == [first]
    assert first.results.join() == ended("WorkerLost", "", "")


def test_a_task_that_ran_out_of_time_is_not_repeated() -> None:
    made = Broker(10, {"": 1}, {"again"})
    first = package(2)
    first.name = "again"
    made.accept(first)
    made.join("w", "")
    made.dispatch()
    seen: list[str] = []

    def too_long(name: str) -> TaskEngineError:
        seen.append(name)
        return TaskTimeout("too long")

    made.leave("w", [Account([], None, (first.flight.job, 0))], too_long)
    made.join("x", "")
    assert run_all(made) == [first]
    assert first.results.join() == ended("TaskTimeout", "")
    assert seen == ["again"]


@pytest.mark.parametrize("account", [SENSELESS, Account([(99, 0, 1, 0, 0, b"")], None, None)])
def test_whose_account_has_no_sense_may_have_run_anything(account: Account) -> None:
    made = broker(workers=1)
    first = package(10)
    made.accept(first)
    (batch,) = made.dispatch()
    assert made.leave(batch.worker, [account]) == [first]
    assert first.results.join() == ended(*["WorkerLost"] * 10)


def test_who_is_condemned_gets_nothing_more() -> None:
    made = broker(workers=2)
    made.workers.exclude("w0")
    made.workers.exclude("nobody")
    made.accept(package(40))
    assert {batch.worker for batch in made.dispatch()} == {"w1"}


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    made = broker()
    with pytest.raises(ProtocolError, match="not given"):
        made.finish("w0", [])
    made.accept(package(5))
    batch = made.dispatch()[0]
    slice = batch.slices[0]
    whole, job = (slice.first, slice.stop), slice.package.flight.job
    wrong: list[list[tuple[int, int, int]]] = [
        [(job + 1, *whole)],
        [(job, 1, 3)],
        [(job, 0, 0)],
        [(job, 0, 9)],
        [(job, *whole), (job, *whole)],
        [(job, 0, 1), (job, 2, 3)],
    ]
    for entries in wrong:
        with pytest.raises(ProtocolError, match="other tasks"):
            made.finish(batch.worker, [(*entry, 0, 0, b"") for entry in entries])
    made.finish(batch.worker, answers(batch))


def test_an_answer_may_come_in_pieces() -> None:
    made = broker(workers=1)
    made.accept(package(5))
    (batch,) = made.dispatch()
    pieces = [answer(batch.slices[0], 0, 2), answer(batch.slices[0], 2, 5)]
    assert [one.results.join() for one in made.finish(batch.worker, pieces)] == [b"<0><1><2><3><4>"]
