"""Generators are advanced as far as credit goes, and closed for whatever reason, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from taskengine.errors import BadArguments, Cancelled, TaskFailed, TaskTimeout
from taskengine.protocol.credit import Grant
from taskengine.registry.registry import Task
from taskengine.worker import streams as module
from taskengine.worker.streams import TaskStreams
from tests.engine import deadline


class Worker:
    """A worker's streams: `waits` are what happens, one after the other, while a generator waits."""

    def __init__(self) -> None:
        self.streams = TaskStreams(lambda: (7, 0))
        self.streams.grant_at_hand = Grant(2, 100)
        self.sent: list[tuple[int, int, bytes]] = []
        self.told: list[str] = []
        self.waits: list[Callable[[], None]] = []
        self.streams.connect(lambda *value: self.sent.append(value), self.wait)

    def wait(self, seconds: float) -> None:
        if seconds:
            self.told.append(f"waits after {len(self.sent)}")
            self.waits.pop(0)()

    def scan(self, number: int) -> Iterator[Any]:
        try:
            for value in range(number):
                self.told.append(f"yields {value}")
                yield value
        finally:
            self.told.append("closed")

    def task(self, function: Callable[..., Any] | None = None, timeout: float | None = None) -> Task:
        return Task("scan", function or Worker.scan.__get__(self), "", timeout, False)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_it_is_not_advanced_before_its_next_value_may_be_sent(worker: Worker) -> None:
    worker.waits = [lambda: worker.streams.grant(7, Grant(3, 100)), lambda: worker.streams.grant(7, Grant(9, 100))]
    assert worker.streams.sent(worker.task()).function(3) is None
    assert worker.sent == [(7, 0, b"\x00"), (7, 1, b"\x01"), (7, 2, b"\x02"), (7, 3, b"")]
    assert worker.told == ["yields 0", "yields 1", "waits after 2", "yields 2", "waits after 3", "closed"]


@pytest.mark.parametrize("how", ["cancel", "end"])
def test_it_is_closed_when_nobody_wants_it(worker: Worker, how: str) -> None:
    worker.waits = [lambda: worker.streams.cancel([(7, 0, 1)]) if how == "cancel" else worker.streams.end()]
    with pytest.raises(Cancelled):
        worker.streams.sent(worker.task()).function(9)
    assert worker.told[-1] == "closed"
    worker.streams.grant(7, Grant(99, 99))  # it comes too late, and nobody minds


def test_what_is_cancelled_elsewhere_does_not_close_it(worker: Worker) -> None:
    worker.waits = [
        lambda: worker.streams.cancel([(8, 0, 1), (7, 1, 2)]),
        lambda: worker.streams.grant(8, Grant(9, 100)),
        lambda: worker.streams.grant(7, Grant(9, 100)),
    ]
    worker.streams.sent(worker.task()).function(3)
    assert len(worker.sent) == 4, "three values, and that there are no more"


def test_its_timeout_counts_while_it_waits(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("taskengine.worker.streams.time.monotonic", lambda: now[0])
    worker.waits = [lambda: now.__setitem__(0, 101.5)]
    with pytest.raises(TaskTimeout, match=r"scan took longer than its timeout of 1.5 s"):
        worker.streams.sent(worker.task(timeout=1.5)).function(3)
    assert worker.told[-1] == "closed"


def test_a_list_has_bounds(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = worker.streams.listed(worker.task())
    assert listed.function(3) == [0, 1, 2]
    monkeypatch.setattr(module, "MOST_LISTED", 2)
    assert listed.function(2) == [0, 1]
    with pytest.raises(BadArguments, match="`stream` it"):
        listed.function(3)
    assert worker.told[-1] == "closed"


def test_other_tasks_are_left_alone_and_cannot_be_streamed(worker: Worker) -> None:
    plain = worker.task(len)
    assert worker.streams.listed(plain) is plain
    with pytest.raises(BadArguments, match="is no generator"):
        worker.streams.sent(plain).function([1])


def test_a_value_that_cannot_be_sent_ends_it(worker: Worker) -> None:
    def odd() -> Iterator[Any]:
        yield object()

    with pytest.raises(TaskFailed, match="a value cannot be sent"):
        worker.streams.sent(worker.task(odd)).function()


def test_an_error_in_its_finally_is_its_error(worker: Worker) -> None:
    def stubborn() -> Iterator[Any]:
        try:
            while True:
                yield 1
        finally:
            raise ValueError("it does not let go")

    worker.waits = [worker.streams.end]
    with pytest.raises(ValueError, match="let go"):
        worker.streams.sent(worker.task(stubborn)).function()


class Beside:
    """An async generator of job 7 that is at its first value, until it is let go on."""

    def __init__(self, worker: Worker) -> None:
        self.at_value = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.running = asyncio.ensure_future(worker.streams.sent(worker.task(self.scan)).function())

    async def scan(self) -> AsyncIterator[Any]:
        self.at_value.set()
        await self.may_go_on.wait()
        for value in range(3):
            yield value


def test_a_value_that_is_ready_after_the_end_is_not_sent(worker: Worker) -> None:
    async def play() -> None:
        beside = Beside(worker)
        await beside.at_value.wait()
        worker.streams.end()  # there is another router from here on
        beside.may_go_on.set()
        with pytest.raises(Cancelled):
            await beside.running

    asyncio.run(play())
    assert worker.sent == []


def test_another_routers_stream_may_have_the_number_of_one_that_still_ends(worker: Worker) -> None:
    async def play() -> None:
        old = Beside(worker)
        await old.at_value.wait()
        worker.streams.end()
        new = Beside(worker)
        await new.at_value.wait()
        old.may_go_on.set()
        with pytest.raises(Cancelled):
            await old.running
        worker.streams.grant(7, Grant(9, 100))
        new.may_go_on.set()
        await asyncio.wait_for(new.running, deadline(5.0))

    asyncio.run(play())
    assert worker.sent == [(7, 0, b"\x00"), (7, 1, b"\x01"), (7, 2, b"\x02"), (7, 3, b"")]
