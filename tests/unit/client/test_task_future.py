"""The futures of calls behave as those of the standard library, though they have no lock of their own at first."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest

from taskengine import TaskFailed
from taskengine.client.task_future import Outcome, TaskFuture, settle, to_send
from tests.engine import deadline


def made(count: int = 1) -> list[TaskFuture]:
    """Futures of calls that nobody can cancel at an engine."""
    return [TaskFuture(lambda serial, position: None) for _ in range(count)]


def end(*outcomes: Outcome) -> None:
    """Resolve the futures, as a leader does."""
    settle(deque(outcomes))


def test_the_standard_library_keeps_in_a_future_what_this_one_stands_in_for() -> None:
    names = {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}
    assert set(vars(Future())) == names, "another Python: look at what TaskFuture lacks while it is bare"


def test_it_stays_bare_where_its_result_is_only_taken() -> None:
    (future,) = made()
    assert to_send([future]) == [0]
    end((future, 4))
    assert (future.result(), future.result(0)) == (4, 4)
    assert future.is_bare


@pytest.mark.parametrize(
    "look",
    [Future.done, repr, Future.running, lambda future: future.add_done_callback(print)],
    ids=["done", "repr", "running", "callback"],
)
def test_one_that_was_looked_at_ends_all_the_same(
    look: Callable[[Future[Any]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    (future,) = made()
    look(future)
    assert not future.is_bare
    end((future, 4))
    assert (future.result(0), future.done(), future.running(), future.cancelled()) == (4, True, False, False)


def test_one_that_has_ended_bare_answers_everything() -> None:
    well, failed = made(2)
    error = TaskFailed("boom")
    end((well, 4), (failed, error))
    called: list[Future[Any]] = []
    for future in well, failed:
        assert (future.done(), future.running(), future.cancelled(), future.cancel()) == (True, False, False, False)
        future.add_done_callback(called.append)
        assert repr(future)
        with pytest.raises(futures.InvalidStateError):
            future.set_result(5)
        assert not future.set_running_or_notify_cancel()
    assert (well.result(0), well.exception(0), failed.exception(0)) == (4, None, error)
    with pytest.raises(TaskFailed):
        failed.result()
    assert called == [well, failed]
    assert futures.wait([well, failed], 0).done == {well, failed}
    assert set(futures.as_completed([well, failed], 0)) == {well, failed}


def test_wait_and_as_completed_take_some_of_each_kind() -> None:
    bare, waited, late, plain = *made(3), Future[Any]()
    waited.done()
    end((bare, 1), (waited, 2), (plain, 4))
    for strategy in futures.FIRST_COMPLETED, futures.FIRST_EXCEPTION, futures.ALL_COMPLETED:
        assert futures.wait([bare, waited, late, plain], 0, strategy).not_done == {late}
    completed = futures.as_completed([bare, waited, late, plain])
    assert {next(completed) for _ in range(3)} == {bare, waited, plain}
    end((late, 3))
    assert next(completed) is late


def test_a_call_that_was_not_sent_is_cancelled_at_once() -> None:
    first, second = made(2)
    called: list[Future[Any]] = []
    first.add_done_callback(called.append)
    assert (first.cancel(), first.cancel(), first.cancelled(), called) == (True, True, True, [first])
    assert to_send([first, second]) == [1]
    assert to_send([first, second]) == [1]
    assert futures.wait([first], 0).done == {first}
    end((first, TaskFailed("too late")))
    with pytest.raises(futures.CancelledError):
        first.result(0)


def test_a_call_that_was_sent_is_for_the_engine_to_cancel() -> None:
    asked: list[tuple[int, int | None]] = []
    future = TaskFuture(lambda serial, position: asked.append((serial, position)))
    future.set_running_or_notify_cancel()
    future.serial, future.position = 7, 3
    assert (future.running(), future.cancel(), future.is_unwanted, asked) == (True, False, True, [(7, 3)])
    end((future, 4))
    assert (future.cancel(), asked, future.result(0)) == (False, [(7, 3)], 4)


def test_a_future_that_is_no_call_is_sent_unless_it_was_cancelled() -> None:
    gone, ended, third = Future[Any](), Future[Any](), Future[Any]()
    gone.cancel()
    ended.set_result(1)
    assert [to_send([gone, ended, third]) for _ in range(2)] == [[2], [2]]


def test_one_that_was_interrupted_while_it_ended_ends_again() -> None:
    (future,) = made()
    end((future, 4))
    end((future, 4))
    assert future.result(0) == 4


def test_an_attribute_that_nothing_has() -> None:
    with pytest.raises(AttributeError, match="no attribute 'value'"):
        _ = made()[0].value


@pytest.fixture
def many_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("many_switches")
def test_no_waiting_thread_is_missed() -> None:
    count, called = 3000, deque[int]()
    calls = made(count)
    ways: list[Callable[[TaskFuture], object]] = [
        lambda future: future.result(deadline(20)),
        lambda future: futures.wait([future], deadline(20)).done or pytest.fail("it was missed"),
        lambda future: next(futures.as_completed([future], deadline(20))),
        lambda future: future.exception(deadline(20)),
    ]

    def note(number: int, _: Future[Any]) -> None:
        called.append(number)

    def wait(seed: int) -> None:
        draw = random.Random(seed)
        for number, future in enumerate(calls):
            future.add_done_callback(partial(note, number))
            draw.choice(ways)(future)

    with futures.ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(wait, seed) for seed in range(3)]
        outcomes = deque[Outcome]()
        for start in range(0, count, 7):
            to_send(calls[start : start + 7])
            outcomes.extend((future, number) for number, future in enumerate(calls[start : start + 7], start))
            settle(outcomes)
        for waited in waits:
            waited.result(deadline(60))
    assert sorted(called) == sorted([*range(count)] * 3)
    assert [future.result(0) for future in calls] == [*range(count)]


@pytest.mark.usefixtures("many_switches")
def test_threads_that_wait_for_several_futures_do_not_block_each_other() -> None:
    """`wait` takes the locks of all its futures at once, in an order that no shared lock would fit into."""
    for _ in range(300):
        calls = made(6)
        for future in calls[::2]:
            future.done()
        end(*((future, 1) for future in calls[1::2]))

        def look(*places: int, calls: list[TaskFuture] = calls) -> int:
            return len(futures.wait([calls[place] for place in places], 0).done)

        with futures.ThreadPoolExecutor(3) as pool:
            looks = [pool.submit(look, *places) for places in ((0, 1, 2), (3, 4, 0), (5, 2, 4), (1, 2, 3, 4))]
            assert [each.result(deadline(10)) for each in looks] == [1, 1, 1, 2]


@pytest.mark.usefixtures("many_switches")
def test_a_cancelled_call_is_sent_or_cancelled_and_never_both() -> None:
    calls = made(3000)
    cancelled = [False] * len(calls)

    def cancel() -> None:
        for place, future in enumerate(calls):
            cancelled[place] = future.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    sent = [start + place for start in range(0, len(calls), 5) for place in to_send(calls[start : start + 5])]
    thread.join()
    assert sorted(sent) == [place for place, is_cancelled in enumerate(cancelled) if not is_cancelled]
    assert all(calls[place].is_unwanted for place in sent)


def test_a_forked_child_can_use_them_whatever_other_threads_did() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            calls = made(100)
            to_send(calls)
            end(*((future, 1) for future in calls))

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                (future,) = made()
                end((future, 4))
                os._exit(future.result(0) + future.done())
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    finally:
        stop.set()
        thread.join()


def test_what_is_cancelled_just_before_it_is_resolved_is_passed_over() -> None:
    class Racing(Future[Any]):
        def done(self) -> bool:
            return False  # as it was a moment ago

    futures = [Racing(), Future[Any]()]
    futures[0].cancel()
    settle(deque((future, 1) for future in futures))
    assert futures[0].cancelled()
    assert futures[1].result(0) == 1


def test_a_callback_that_raises_more_than_an_exception_costs_nobody_an_outcome() -> None:
    futures = [Future[Any]() for _ in range(3)]
    futures[1].add_done_callback(lambda _: sys.exit(1))
    outcomes = deque((future, 1) for future in futures)
    with pytest.raises(SystemExit):
        settle(outcomes)
    settle(outcomes)
    assert [future.result(0) for future in futures] == [1, 1, 1]


def test_who_waits_is_woken_although_the_one_that_resolves_is_stopped_before_it_does() -> None:
    future = Future[Any]()
    outcomes = deque([(future, 1)])
    future._condition.notify_all = Mock(side_effect=[KeyboardInterrupt, None])  # type: ignore[method-assign]  # fails once
    with pytest.raises(KeyboardInterrupt):
        settle(outcomes)
    settle(outcomes)
    assert future._condition.notify_all.call_count == 2
    assert not outcomes


def test_a_callback_may_settle_the_others() -> None:
    futures = [Future[Any]() for _ in range(3)]
    outcomes = deque((future, 1) for future in futures)
    futures[0].add_done_callback(lambda _: settle(outcomes))
    settle(outcomes)
    assert [future.result(0) for future in futures] == [1, 1, 1]
