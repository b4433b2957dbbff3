"""Tasks that run again after errors of their own."""

from __future__ import annotations

import pytest

from taskengine.broker.broker import Broker
from taskengine.broker.lane import Batch
from taskengine.broker.package import Package
from taskengine.broker.recovery import Account, Answered
from taskengine.broker.retries import LONGEST_PAUSE_S, Retries, pause_s
from taskengine.errors import Overloaded
from taskengine.protocol.layouts import MAY_RETRY
from taskengine.protocol.messages import RetryPolicy
from tests.packages import answer, package

POLICY = RetryPolicy(2, backoff=1.0)


class Trial:
    """A broker with a worker, whose task "plain" has the policy; the time goes on when told so."""

    def __init__(self, policy: RetryPolicy = POLICY, workers: int = 1) -> None:
        self.broker = Broker(10, {"": workers})
        self.broker.retries = Retries(self.broker._lanes, self.broker.counters, draw=lambda: 1.0)
        self.broker.retries.learn({"plain": policy})
        for number in range(workers):
            self.broker.join(f"w{number}", "")
        self.whole: list[Package] = []
        self.now = 100.0
        self.turn(0.0)

    def turn(self, seconds: float) -> list[Batch]:
        """Let time go on, and hand out what waits."""
        self.now += seconds
        self.broker.counters.tick(self.now)
        self.whole += self.broker.settle(self.now)
        return self.broker.dispatch()

    def accept(self, tasks: int, deadline: float = float("inf")) -> Package:
        made = package(tasks)
        made.deadline = deadline
        self.broker.accept(made)
        return made

    def finish(self, batch: Batch, *failing: int) -> None:
        """Answer a batch; the tasks at these positions failed and may be run again."""
        entries: list[Answered] = []
        for slice in batch.slices:
            at = slice.first
            for position in sorted(failing):
                if slice.first <= position < slice.stop:
                    entries += [answer(slice, at, position)] if position > at else []
                    entries.append(failed(slice.package, position))
                    at = position + 1
            entries += [answer(slice, at, slice.stop)] if at < slice.stop else []
        self.whole += self.broker.finish(batch.worker, entries)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Tasks that are answered, that wait, and that a worker has; all that were accepted."""
        stats = self.broker.stats({})
        [lane] = stats.lanes
        assert stats.accepted == stats.answered + stats.in_flight
        return stats.answered, lane.queued, lane.running


def failed(package: Package, position: int) -> Answered:
    return package.flight.job, position, position + 1, MAY_RETRY | 1, 5, b"<%d failed>" % position


def test_a_task_that_failed_runs_again_after_its_backoff_and_is_answered_once() -> None:
    trial = Trial()
    made = trial.accept(3)
    [batch] = trial.turn(0.0)
    trial.finish(batch, 1)
    assert trial.counts == (2, 1, 0)
    assert trial.broker.retries.due == 101.0
    assert trial.turn(0.9) == []
    [again] = trial.turn(0.1)
    assert [slice.tasks() for slice in again.slices] == [(made, 1, 2)]
    assert trial.counts == (2, 0, 1)
    trial.finish(again)
    assert trial.whole == [made]
    assert made.results.join() == b"<0><1><2>"
    assert (made.results.failed, trial.broker.counters.retried) == (0, 1)
    assert trial.broker.retries.retried == {"plain": 1}


def test_the_last_try_is_the_answer() -> None:
    trial = Trial()
    made = trial.accept(1)
    for pause in (0.0, 1.0, 2.0):
        assert trial.whole == []
        [batch] = trial.turn(pause)
        trial.finish(batch, 0)
    assert trial.whole == [made]
    assert (made.results.join(), made.results.failed) == (b"<0 failed>", 1)
    assert trial.broker.counters.retried == 2
    assert trial.broker.stats({}).errors == {"failed": 1}


def test_each_task_has_its_own_tries() -> None:
    trial = Trial()
    made = trial.accept(4)
    [batch] = trial.turn(0.0)
    trial.finish(batch, 0, 2, 3)
    batches = trial.turn(1.0)
    while batches:
        for batch in batches:
            trial.finish(batch)
        batches = trial.turn(0.0)
    assert trial.whole == [made]
    assert made.results.join() == b"<0><1><2><3>"


def test_a_try_that_would_begin_after_the_deadline_is_not_waited_for() -> None:
    trial = Trial()
    made = trial.accept(1, deadline=100.9)
    [batch] = trial.turn(0.0)
    trial.finish(batch, 0)
    assert trial.whole == [made]
    assert made.results.join() == b"<0 failed>"


def test_a_task_that_waits_for_its_next_try_is_cancelled() -> None:
    trial = Trial()
    made = trial.accept(2)
    [batch] = trial.turn(0.0)
    trial.finish(batch, 0)
    trial.broker.withdrawals.cancel(b"client", "serial")
    trial.turn(0.0)
    assert trial.whole == [made]
    assert made.results.join() == b"<0 Cancelled><1>"
    assert trial.counts == (2, 0, 0)
    assert trial.turn(10.0) == []
    assert trial.broker.retries.due == float("inf")


def test_a_single_task_that_was_cancelled_does_not_run_again() -> None:
    trial = Trial()
    made = trial.accept(2)
    [batch] = trial.turn(0.0)
    trial.broker.withdrawals.cancel(b"client", "serial", [0])
    trial.finish(batch, 0)
    assert trial.whole == [made]
    assert made.results.join() == b"<0 failed><1>"


def test_a_single_task_is_cancelled_while_it_waits() -> None:
    trial = Trial()
    made = trial.accept(2)
    [batch] = trial.turn(0.0)
    trial.finish(batch, 0)
    trial.broker.withdrawals.cancel(b"client", "serial", [0])
    trial.turn(0.0)
    assert trial.whole == [made]
    assert made.results.join() == b"<0 Cancelled><1>"


def test_an_engine_that_stops_tries_nothing_again() -> None:
    trial = Trial()
    made = trial.accept(1)
    [batch] = trial.turn(0.0)
    trial.broker.stopping = True
    trial.finish(batch, 0)
    assert trial.whole == [made]


def test_a_router_that_ends_answers_what_waits() -> None:
    trial = Trial()
    made = trial.accept(1)
    [batch] = trial.turn(0.0)
    trial.finish(batch, 0)
    assert trial.broker.abandon(Overloaded("stopped", retry_after=None)) == [made]
    assert made.results.join() == b"<0 Overloaded>"


def test_a_worker_that_died_after_an_error_had_reported_it() -> None:
    trial = Trial()
    made = trial.accept(2)
    [batch] = trial.turn(0.0)
    entry = failed(made, 0)
    trial.whole += trial.broker.leave(batch.worker, [Account([entry], None, (made.flight.job, 1))])
    assert trial.counts == (1, 1, 0)
    trial.broker.join("w9", "")
    [again] = trial.turn(1.0)
    trial.finish(again)
    assert trial.whole == [made]
    assert made.results.join() == b"<0><1 WorkerLost>"


def test_a_worker_that_dies_in_a_task_with_retries_is_no_error_of_the_task() -> None:
    trial = Trial()
    made = trial.accept(1)
    [batch] = trial.turn(0.0)
    trial.whole += trial.broker.leave(batch.worker, [Account([], None, (made.flight.job, 0))])
    assert trial.whole == [made]
    assert made.results.join() == b"<0 WorkerLost>"
    assert trial.broker.counters.retried == 0


def test_a_task_whose_policy_is_gone_with_a_reload_is_answered() -> None:
    trial = Trial()
    made = trial.accept(1)
    [batch] = trial.turn(0.0)
    trial.broker.retries.learn({})
    trial.finish(batch, 0)
    assert trial.whole == [made]


def test_tasks_behind_one_that_waits_go_on() -> None:
    trial = Trial()
    first, second = trial.accept(1), trial.accept(1)
    [batch] = trial.turn(0.0)
    trial.finish(batch, 0)
    [other] = trial.turn(0.0)
    assert other.slices[0].package is second
    trial.finish(other)
    assert trial.whole == [second]
    [again] = trial.turn(1.0)
    trial.finish(again)
    assert trial.whole == [second, first]


@pytest.mark.parametrize(("tries", "longest"), [(1, 0.2), (2, 0.4), (3, 0.8), (9, 51.2), (10, 60.0), (1000, 60.0)])
def test_pauses_double_up_to_a_minute_and_are_half_of_that_at_least(tries: int, longest: float) -> None:
    policy = RetryPolicy(1000, 0.2)
    assert pause_s(policy, tries, 1.0) == pytest.approx(longest)
    assert pause_s(policy, tries, 0.0) == pytest.approx(longest / 2)


def test_a_first_pause_of_more_than_a_minute_stays_as_it_is() -> None:
    assert pause_s(RetryPolicy(9, 3 * LONGEST_PAUSE_S), 5, 1.0) == 3 * LONGEST_PAUSE_S
    assert pause_s(RetryPolicy(9, 0.0), 5, 1.0) == 0.0
