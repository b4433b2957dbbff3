"""A task's reports are sent by the worker's own thread, where the client wants them."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from taskengine import BadArguments, progress
from taskengine.protocol.progress import REPORT_BURST, WORKER_BURST
from taskengine.worker import progress as module
from taskengine.worker.context import coroutine_name
from taskengine.worker.event_loop import EventLoop
from taskengine.worker.progress import TaskProgress

JOB = 7


class Worker:
    """A worker's reports, as (job, position of the message, what it says)."""

    def __init__(self) -> None:
        self.at_hand: tuple[int, int] | None = (JOB, 2)
        self.reports = TaskProgress(lambda: self.at_hand)
        self.reports.is_wanted = True
        self.sent: list[tuple[int, int, tuple[int, float, float | None, str]]] = []
        self.threads: set[int] = set()
        self.reports.connect(self.send)

    def send(self, job: int, position: int, report: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.sent.append((job, position, msgspec.msgpack.decode(report, type=tuple[int, float, float | None, str])))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(module._Here, "reports", None)
    return Worker()


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_it_says_which_task_it_is_of(worker: Worker) -> None:
    progress(1, 4, "going")
    worker.at_hand = (JOB, 3)
    progress(0.5)
    assert worker.sent == [(JOB, 2, (2, 1, 4, "going")), (JOB, 3, (3, 0.5, None, ""))]


@pytest.mark.parametrize("why", ["outside of a worker", "nobody asked", "no task runs"])
def test_nothing_is_sent_where_nobody_wants_it(worker: Worker, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "outside of a worker":
        monkeypatch.setattr(module._Here, "reports", None)
    elif why == "nobody asked":
        worker.reports.is_wanted = False
    else:
        worker.at_hand = None
    progress("not even checked")
    assert worker.sent == []


def test_each_task_has_a_rate_of_its_own(worker: Worker) -> None:
    for position in 2, 3:
        worker.at_hand = (JOB, position)
        for done in range(3 * REPORT_BURST):
            progress(done)
    told = [position for _, position, _ in worker.sent]
    assert [REPORT_BURST <= told.count(position) <= REPORT_BURST + 1 for position in (2, 3)] == [True, True]


def test_all_tasks_of_a_worker_together_have_one_too(worker: Worker) -> None:
    for position in range(WORKER_BURST):
        worker.at_hand = (JOB, position)
        for done in range(3):
            progress(done)
    assert WORKER_BURST <= len(worker.sent) < 3 * WORKER_BURST


def test_what_cannot_be_said_is_an_error_also_where_it_would_not_be_sent(worker: Worker) -> None:
    for _ in range(REPORT_BURST + 1):
        progress(1)
    with pytest.raises(BadArguments):
        progress("half")
    with pytest.raises(BadArguments):
        progress(1, message=b"bytes")  # type: ignore[arg-type]


def test_another_thread_says_nothing(worker: Worker) -> None:
    in_thread(lambda: progress(1))
    in_thread(lambda: contextvars.copy_context().run(progress, 1))
    assert worker.sent == []


def test_a_forked_child_says_nothing(worker: Worker) -> None:
    pid = os.fork()
    if not pid:
        progress(1)
        os._exit(len(worker.sent))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    progress(2)
    assert len(worker.sent) == 1


@pytest.fixture
def loop(worker: Worker) -> Iterator[EventLoop]:
    loop = EventLoop(lambda line: None, worker.reports)
    worker.reports.connect(worker.send, loop.soon)
    yield loop
    loop.close()


async def tell(done: int) -> None:
    await asyncio.sleep(0)
    progress(done)
    await asyncio.to_thread(progress, done, None, "a thread")
    await asyncio.sleep(0.01)


def test_coroutines_beside_each_other_tell_for_themselves(worker: Worker, loop: EventLoop) -> None:
    running = []
    for position in range(3):
        worker.at_hand = (JOB, position)
        worker.reports.is_wanted = position != 1
        running.append(loop.start(tell(10 + position), "tell", None))
    worker.at_hand, worker.reports.is_wanted = (JOB + 1, 0), True
    while not all(each.task.done() for each in running):
        loop.wait(0.01)
    assert sorted(worker.sent) == [
        *((JOB, 0, (0, 10, None, text)) for text in ("", "a thread")),
        *((JOB, 2, (2, 12, None, text)) for text in ("", "a thread")),
    ]
    assert worker.threads == {threading.get_ident()}


def test_a_plain_function_beside_them_tells_for_itself(worker: Worker, loop: EventLoop) -> None:
    assert coroutine_name.get() == ""
    progress(1)
    assert worker.sent == [(JOB, 2, (2, 1, None, ""))]


@pytest.mark.parametrize("way", ["its own thread", "another thread", "another thread, and then the worker rejoins"])
def test_what_is_left_of_a_coroutine_says_nothing_to_another_router(worker: Worker, way: str) -> None:
    deferred: list[Callable[[], None]] = []
    worker.reports.connect(worker.send, deferred.append)
    left = worker.reports.reporter()
    assert left is not None
    if way == "its own thread":
        worker.reports.rejoined()
        left.report(1, None, "")
    elif way == "another thread":
        worker.reports.rejoined()
        in_thread(lambda: left.report(1, None, ""))
    else:
        in_thread(lambda: left.report(1, None, ""))
        assert len(deferred) == 1
        worker.reports.rejoined()
    for call in deferred:
        call()
    assert worker.sent == []
    progress(2)
    assert worker.sent == [(JOB, 2, (2, 2, None, ""))], "the new router's task of that number is heard"


def test_a_thread_that_outlives_the_loop_is_not_heard(worker: Worker) -> None:
    loop = EventLoop(lambda line: None, worker.reports)
    worker.reports.connect(worker.send, loop.soon)
    loop.close()
    reporter = worker.reports.reporter()
    assert reporter is not None
    in_thread(lambda: reporter.report(1, None, ""))
    assert worker.sent == []
