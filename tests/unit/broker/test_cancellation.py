from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.cancellation import Cancellation, CancelledTasks
from taskengine.broker.recovery import Account
from taskengine.broker.results import Results
from taskengine.errors import Cancelled, Overloaded
from taskengine.protocol.limits import MAX_RUNS
from tests.brokers import broker, ended, run_all
from tests.packages import answer, answers, package

TASKS = 24
positions = st.integers(0, TASKS - 1)
events = st.lists(st.one_of(st.lists(positions), st.tuples(positions, positions)), max_size=20)


@given(events)
def test_it_knows_what_is_unwanted_and_has_no_answer(events: list[list[int] | tuple[int, int]]) -> None:
    unwanted, model = CancelledTasks(TASKS), set[int]()
    for event in events:
        if isinstance(event, list):
            assert unwanted.add(event) == (not model >= set(event))
            model |= set(event)
        else:
            first, stop = min(event), max(event) + 1
            unwanted.answer(first, stop)
            model -= set(range(first, stop))
        assert unwanted.left == len(model)
        for first in range(TASKS):
            inside = [position in model for position in range(first, TASKS)]
            assert unwanted.begin(first, TASKS) == first + (inside.index(True) if any(inside) else len(inside))
            assert unwanted.end(first, TASKS) == first + (len(inside) if all(inside) else inside.index(False))


def test_places_are_limited_and_not_tasks() -> None:
    unwanted = CancelledTasks(3 * MAX_RUNS)
    assert unwanted.add(range(0, 2 * MAX_RUNS, 2))
    with pytest.raises(Overloaded, match=str(MAX_RUNS)):
        unwanted.add([2 * MAX_RUNS + 5])
    assert unwanted.add(range(2 * MAX_RUNS))
    assert unwanted.left == 2 * MAX_RUNS


def test_runs_count_only_what_is_new() -> None:
    unwanted = CancelledTasks(10)
    unwanted.add([2, 3])
    assert unwanted.add_runs([(0, 4), (6, 8)])
    assert unwanted.left == 6
    assert not unwanted.add_runs([(6, 8)])
    assert [unwanted.begin(4, 10), unwanted.end(6, 10)] == [6, 8]


def test_what_is_cancelled_is_news_once() -> None:
    made, results = Cancellation(), Results(3)
    assert made.cancel([0, 2], 3, results)
    assert not made.cancel([0], 3, results)
    assert (list(made.runs(0, 3)), made.is_over(3)) == ([(0, 1), (2, 3)], False)
    assert made.cancel_all()
    assert not made.cancel_all()
    assert not made.cancel([1], 3, results)
    assert isinstance(made.reason, Cancelled)
    assert made.is_over(3)
    assert list(made.runs(1, 2)) == [(1, 2)]


def test_what_is_cancelled_and_waits_never_starts() -> None:
    made = broker(size=1, workers=1)
    running, unwanted = package(1), package(5)
    unwanted.serial = "other"
    made.accept(running)
    (batch,) = made.dispatch()
    made.accept(unwanted)
    made.withdrawals.cancel(b"stranger", "other")
    made.withdrawals.cancel(b"client", "unknown")
    assert made.revoke() == []
    made.withdrawals.cancel(b"client", "other")
    assert made.revoke() == [unwanted]
    assert unwanted.results.join() == ended(*["Cancelled"] * 5)
    assert made.recalls() == []
    assert made.finish(batch.worker, answers(batch)) == [running]
    assert made.dispatch() == []
    assert made.idle()


def test_single_tasks_are_cancelled_and_the_rest_runs() -> None:
    made = broker(workers=1)
    slow, mixed = package(1), package(30)
    mixed.serial = "mixed"
    made.accept(slow)
    (batch,) = made.dispatch()
    made.accept(mixed)
    made.withdrawals.cancel(b"client", "mixed", [29, 0, 7, 7, 31, -4, 2**70])
    assert made.revoke() == []
    assert made.finish(batch.worker, answers(batch)) == [slow]
    assert run_all(made) == [mixed]
    kinds = ["Cancelled" if position in (0, 7, 29) else "" for position in range(30)]
    assert mixed.results.join() == ended(*kinds)
    assert made.idle()


def test_what_a_worker_has_and_has_not_begun_is_recalled_and_cancelled() -> None:
    made = broker(size=100, workers=1)
    unwanted, other = package(100), package(10, client=b"other")
    made.accept(unwanted)
    (batch,) = made.dispatch()
    made.accept(other)
    made.withdrawals.cancel(b"client", "serial", [1, 50, 51])
    assert made.revoke() == []
    assert made.recalls() == [(batch.worker, batch.number)]
    assert made.recalls() == []
    # 0 to 10 had run when the worker looked up
    assert made.finish(batch.worker, [answer(batch.slices[0], 0, 10)]) == []
    whole = run_all(made)
    assert set(whole) == {unwanted, other}
    kinds = ["Cancelled" if position in (50, 51) else "" for position in range(100)]
    assert unwanted.results.join() == ended(*kinds)


def test_a_client_cancels_all_that_it_has_in_flight() -> None:
    made = broker(size=1, workers=1)
    mine, others = [package(3), package(4)], package(2, client=b"other")
    mine[1].serial = "second"
    for each in (*mine, others):
        made.accept(each)
    (batch,) = made.dispatch()
    made.withdrawals.cancel(b"client")
    assert made.revoke() == [mine[1]]
    assert made.recalls() == [(batch.worker, batch.number)]
    assert set(run_all(made)) | set(made.finish(batch.worker, answers(batch))) >= {mine[0]}
    assert run_all(made) == [others]
    assert mine[0].results.join() == ended("", "Cancelled", "Cancelled")


def test_what_was_cancelled_is_not_run_again_when_its_worker_dies() -> None:
    made = broker(size=100, workers=1)
    unwanted = package(10)
    unwanted.idempotent = True
    made.accept(unwanted)
    (batch,) = made.dispatch()
    made.withdrawals.cancel(b"client", "serial")
    made.revoke()
    done = [answer(batch.slices[0], 0, 4)]
    assert made.leave(batch.worker, [Account(done, None, (unwanted.flight.job, 4))]) == [unwanted]
    assert unwanted.results.join() == ended(*[""] * 4, *["Cancelled"] * 6)


def test_what_is_accepted_after_all_was_cancelled_runs() -> None:
    made = broker(size=1, workers=1)
    before, after = package(3), package(4)
    after.serial = "after"
    made.accept(before)
    made.withdrawals.cancel(b"client")
    made.accept(after)
    assert made.revoke() == [before]
    assert run_all(made) == [after]
    assert after.results.join() == ended("", "", "", "")


def test_a_package_is_answered_when_nothing_but_cancelled_tasks_are_left() -> None:
    made = broker(size=1, workers=1)
    mixed, other = package(5), package(1, client=b"other")
    made.accept(mixed)
    made.accept(other)
    (batch,) = made.dispatch()
    (slice,) = batch.slices
    made.withdrawals.cancel(b"client", "serial", range(1, 5))
    assert made.revoke() == []
    assert made.finish(batch.worker, [answer(slice, slice.first, slice.stop)]) == []
    assert made.revoke() == [mixed]
    assert mixed.results.join() == ended("", *["Cancelled"] * 4)
    assert run_all(made) == [other]


def test_a_cancel_that_is_no_news_recalls_nobody() -> None:
    made = broker(size=100, workers=1)
    made.accept(package(100))
    (batch,) = made.dispatch()
    made.withdrawals.cancel(b"client", "serial", [7])
    made.revoke()
    assert made.recalls() == [(batch.worker, batch.number)]
    made.withdrawals.cancel(b"client", "serial", [7])
    made.withdrawals.cancel(b"client", "serial", [100])
    assert made.revoke() == []
    assert made.recalls() == []


def test_cancelled_tasks_may_not_be_scattered_without_end() -> None:
    made = broker(size=100, workers=1)
    scattered = package(2 * MAX_RUNS + 4)
    made.accept(scattered)
    made.withdrawals.cancel(b"client", "serial", range(0, 2 * MAX_RUNS, 2))
    with pytest.raises(Overloaded, match="as a whole"):
        made.withdrawals.cancel(b"client", "serial", [2 * MAX_RUNS + 1])
    made.withdrawals.cancel(b"client", "serial", [1])
    made.revoke()
    assert run_all(made) == [scattered]
    assert scattered.results.join().count(b"Cancelled") == MAX_RUNS + 1
