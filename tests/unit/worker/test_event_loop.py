"""An `async def` task in a worker's turn: what it gives, what ends it, and what it leaves on the loop."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from taskengine import BadArguments, Cancelled, Origin, TaskEngineError, TaskFailed, TaskTimeout, _fastpath, caller
from taskengine.broker.binary import error_of
from taskengine.broker.package import encode_head
from taskengine.protocol import layouts
from taskengine.registry.registry import Registry, Task
from taskengine.worker.event_loop import EventLoop
from taskengine.worker.tuning import CANCEL_GRACE_S
from taskengine.worker.worker import BatchRunner, kill_limit_ns
from tests.batches import join_frames, section_of, task

Coroutine = Callable[..., Awaitable[Any]]


class Worker:
    """A worker's turn with an event loop, without a worker."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.loop = EventLoop(self.said.append)

    def call(
        self, function: Coroutine, *args: object, seconds: float | None = None, client: str = "", **kwargs: object
    ) -> Any:
        """The result of a task; its error is raised."""
        registry = Registry()
        registry.tasks["t"] = Task("t", function, "", seconds, idempotent=False)
        head = encode_head("1", ["t"], Origin(client, b"c"))
        section = section_of(join_frames([task(0, *args, **kwargs)]), head=head)
        answer = BatchRunner(registry, callable_of=self.loop.callable_of).run(_fastpath.pack_batch(1, 0, [section]))
        [(_, _, _, failed, _, body)] = _fastpath.read_answer(answer)
        if failed:
            raise error_of(body)
        return _fastpath.unpack(body, 1, bytes)[0]


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.loop.close()


def test_a_coroutine_gives_its_result(worker: Worker) -> None:
    async def add(a: int, b: int = 0) -> int:
        await asyncio.sleep(0)
        return a + b

    assert worker.call(add, 2, b=3) == 5


def test_what_is_no_coroutine_but_is_awaited_gives_its_result(worker: Worker) -> None:
    class Handle:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return 7

    class Callable_:
        async def __call__(self) -> int:
            return 8

    async def named() -> None: ...

    def handle() -> Handle:
        return Handle()

    handle.__wrapped__ = named  # type: ignore[attr-defined]
    assert worker.call(handle) == 7
    assert worker.call(Callable_()) == 8


def test_all_tasks_of_a_worker_share_a_loop_that_goes_on_while_the_worker_waits(worker: Worker) -> None:
    left: list[asyncio.Task[None]] = []
    ticks: list[int] = []

    async def tick() -> None:
        for number in range(3):
            await asyncio.sleep(0.001)
            ticks.append(number)

    async def leave() -> None:
        left.append(asyncio.create_task(tick()))

    async def collect() -> int:
        before = len(ticks)
        await left[0]
        return before

    worker.call(leave)
    while len(ticks) < 2:
        worker.loop.wait(0.001)
    assert worker.call(collect) >= 2
    assert len(ticks) == 3
    assert worker.said == []


def test_an_error_comes_with_the_frames_of_the_task_alone(worker: Worker) -> None:
    async def inner() -> None:
        raise ValueError("wrong")

    async def outer() -> None:
        await inner()

    with pytest.raises(TaskFailed) as caught:
        worker.call(outer)
    assert (caught.value.type, str(caught.value)) == ("ValueError", "ValueError: wrong")
    lines = caught.value.traceback.splitlines()
    assert [line.rpartition(" in ")[2] for line in lines if line.startswith("  File")] == ["outer", "inner"]


def test_arguments_that_do_not_fit_are_told_from_a_type_error_of_the_task(worker: Worker) -> None:
    async def one(value: int) -> None:
        raise TypeError("inside")

    with pytest.raises(BadArguments, match="positional"):
        worker.call(one)
    with pytest.raises(TaskFailed, match="inside"):
        worker.call(one, 1)


def test_a_timeout_cancels_the_coroutine_whose_finally_runs(worker: Worker) -> None:
    seen: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            seen.append("finally")

    with pytest.raises(TaskTimeout, match=r"t took longer than its timeout of 0.02 s, and was cancelled") as caught:
        worker.call(hang, seconds=0.02)
    assert caught.value.seconds == 0.02
    assert seen == ["cancelled", "finally"]


@pytest.mark.parametrize("end", ["value", "error"])
def test_what_a_coroutine_gives_after_its_time_is_a_timeout_all_the_same(worker: Worker, end: str) -> None:
    async def swallow() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if end == "error":
                raise ValueError("while it ended") from None
        return 5

    with pytest.raises(TaskTimeout):
        worker.call(swallow, seconds=0.02)
    gc.collect()
    assert worker.said == []


def test_a_coroutine_that_ends_in_time_is_not_cancelled_later(worker: Worker) -> None:
    async def quick() -> int:
        return 1

    async def pause() -> int:
        await asyncio.sleep(0.03)
        return 2

    assert worker.call(quick, seconds=0.01) == 1
    assert worker.call(pause, seconds=10.0) == 2


def cancelling(worker: Worker, ending: Callable[[], Awaitable[Any]]) -> Coroutine:
    """A task whose caller cancels it while it waits in `ending`."""

    async def hang() -> Any:
        assert worker.loop.current is not None
        asyncio.get_running_loop().call_soon(worker.loop.current.cancel)
        return await ending()

    return hang


def test_a_cancelled_coroutine_ends_in_cancelled(worker: Worker) -> None:
    with pytest.raises(Cancelled, match="while it ran"):
        worker.call(cancelling(worker, lambda: asyncio.sleep(60)))


def test_a_coroutine_that_swallows_its_cancellation_gives_its_result(worker: Worker) -> None:
    async def swallow() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return 5

    assert worker.call(cancelling(worker, swallow)) == 5


def test_a_coroutine_that_goes_on_after_its_cancellation_still_has_its_timeout(worker: Worker) -> None:
    async def deaf() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    with pytest.raises(TaskTimeout):
        worker.call(cancelling(worker, deaf), seconds=0.02)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_would_end_the_loop_is_the_tasks_own_failure(worker: Worker, error: BaseException) -> None:
    async def fail() -> None:
        raise error

    async def after() -> int:
        return 1

    with pytest.raises(TaskFailed) as caught:
        worker.call(fail)
    assert caught.value.type == type(error).__name__
    assert worker.call(after) == 1


def test_a_task_can_neither_stop_the_loop_nor_run_another_one_in_it(worker: Worker) -> None:
    async def stop() -> int:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.001)
        return 1

    async def nest() -> None:
        coroutine = asyncio.sleep(0)
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()

    async def close() -> None:
        asyncio.get_running_loop().close()

    assert worker.call(stop) == 1
    with pytest.raises(TaskFailed, match=r"asyncio.run\(\) cannot be called from a running event loop"):
        worker.call(nest)
    with pytest.raises(TaskFailed, match="Cannot close a running event loop"):
        worker.call(close)
    assert worker.call(stop) == 1


def test_a_plain_task_may_run_a_loop_of_its_own_between_coroutines(worker: Worker) -> None:
    async def five() -> int:
        return 5

    def plain() -> int:
        return asyncio.run(five())

    async def after() -> int:
        return 6

    assert worker.call(plain) == 5  # type: ignore[arg-type]
    assert worker.call(after) == 6


def test_what_is_left_running_and_fails_is_told(worker: Worker) -> None:
    async def fail() -> None:
        raise ValueError("lost")

    async def leave() -> None:
        asyncio.create_task(fail())  # noqa: RUF006  # as users do

    worker.call(leave)
    worker.loop.wait(0.0)
    worker.loop.wait(0.0)
    gc.collect()
    assert len(worker.said) == 1
    assert worker.said[0].endswith("never retrieved: ValueError: lost")


def test_what_is_left_running_cannot_end_the_worker(worker: Worker) -> None:
    async def leave() -> None:
        asyncio.get_running_loop().call_soon(sys.exit)
        await asyncio.sleep(0.001)

    worker.call(leave)
    assert worker.said == ["what a task left on the event loop raised SystemExit"]


def test_what_is_left_running_is_cancelled_when_the_loop_closes() -> None:
    worker, seen = Worker(), []

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    async def leave() -> None:
        worker.left = asyncio.create_task(linger())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    worker.call(leave)
    worker.loop.close()
    assert seen == ["closed"]


def test_an_error_of_the_workers_own_callbacks_ends_the_worker(worker: Worker) -> None:
    def fail() -> None:
        raise OSError("no socket")

    async def waits() -> None:
        await asyncio.sleep(60)

    reader, writer = os.pipe()
    worker.loop.watch(reader, fail)
    os.write(writer, b"x")
    try:
        with pytest.raises(OSError, match="no socket"):
            worker.loop.wait(5.0)
    finally:
        worker.loop.ignore(reader)
        os.close(reader)
        os.close(writer)
    ended = Worker()
    ended.loop.later(0.0, fail)
    with pytest.raises(TaskFailed, match="no socket"):
        ended.call(waits)
    with pytest.raises(OSError, match="no socket"):
        ended.loop.wait(5.0)
    ended.loop.close()


VALUE: ContextVar[int] = ContextVar("value", default=0)


def test_each_task_has_its_own_context_with_its_caller(worker: Worker) -> None:
    async def change() -> list[object]:
        before = VALUE.get()
        VALUE.set(before + 1)
        await asyncio.sleep(0)
        return [before, caller()]

    assert worker.call(change, client="laptop") == [0, "laptop"]
    assert worker.call(change, client="tablet") == [0, "tablet"]


def test_a_coroutines_worker_is_killed_a_second_after_its_timeout() -> None:
    async def slow() -> None: ...

    def plain() -> None: ...

    assert kill_limit_ns(Task("t", slow, "", 2.0, idempotent=False)) == int((2.0 + CANCEL_GRACE_S) * 1e9)
    assert kill_limit_ns(Task("t", plain, "", 2.0, idempotent=False)) == 2_000_000_000
    assert kill_limit_ns(Task("t", slow, "", None, idempotent=False)) == 0


def test_the_page_tells_which_task_runs() -> None:
    page = _fastpath.ProgressPage(bytearray(layouts.PROGRESS_BYTES))
    seen: list[object] = []
    registry = Registry()
    registry.tasks["t"] = Task("t", lambda: seen.append(page.running_task), "", None, idempotent=False)
    section = section_of(join_frames([task(0), task(0)]), job=9, head=encode_head("1", ["t"]))
    BatchRunner(registry, page).run(_fastpath.pack_batch(1, 0, [section]))
    assert seen == [(9, 0), (9, 1)]
    assert page.running_task is None


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_plain_function_that_returns_a_coroutine_is_told_what_to_write(worker: Worker) -> None:
    async def five() -> int:
        return 5

    def plain() -> Any:
        return five()

    with pytest.raises(TaskFailed, match=r"type coroutine .* write the task as `async def`, and await it there"):
        worker.call(plain)


def test_an_error_of_the_engine_passes_as_it_is(worker: Worker) -> None:
    async def fail() -> None:
        raise BadArguments("mine", name="x")

    with pytest.raises(TaskEngineError) as caught:
        worker.call(fail)
    assert isinstance(caught.value, BadArguments)
