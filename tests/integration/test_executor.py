"""`taskengine.Executor`, `imap` and `as_completed` against a real engine; CPython's own tests have their file."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from functools import partial
from typing import Any

import pytest

from taskengine import BadArguments, Cancelled, Client, EngineUnreachable, Executor, TaskFailed, UnknownTask
from taskengine.aio import AsyncClient
from taskengine.tasks import task_count, task_echo, task_fail, task_sleep
from tests.engine import Engine, deadline, free_ports, wait_until


@pytest.fixture
def executor(engine: Engine) -> Iterator[Executor]:
    with Executor(engine.address) as running:
        yield running


def run(engine: Engine, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has an executor `executor`, and return what it did."""
    begin = f"import taskengine, taskengine.tasks as tasks; executor = taskengine.Executor({engine.address!r})"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join([begin, *lines])],
        capture_output=True,
        text=True,
        timeout=deadline(30),
    )


def test_a_function_a_partial_of_one_and_a_name(executor: Executor) -> None:
    calls: list[tuple[Any, ...]] = [(task_count, 2, 3), (partial(task_count, b=3), 2), ("task_count", 2, 3)]
    assert [executor.submit(*call).result(deadline(5)) for call in calls] == [2.5] * 3


def test_what_is_no_task(executor: Executor) -> None:
    with pytest.raises(TypeError, match=r"pow is no task.* put @taskengine\.task on"):
        executor.submit(pow, 2, 3)
    with pytest.raises(BadArguments):
        executor.map(pow, [2], [3])
    with pytest.raises(UnknownTask):
        executor.submit("task_cont").result(deadline(5))


def test_map_in_packages_raises_in_its_place(executor: Executor) -> None:
    results = executor.map(task_count, [1, 2, 3, "x", 5], [1, 2, 3, 4, 5], chunksize=2)
    assert list(itertools.islice(results, 3)) == [1.0, 2.0, 3.0]
    with pytest.raises(TaskFailed):
        next(results)
    for chunksize in 1, 7, 1000:
        assert list(executor.map(task_count, range(100), range(100), chunksize=chunksize)) == list(range(100))


def test_map_of_endless_arguments(executor: Executor) -> None:
    for chunksize in 1, 4:
        numbers = itertools.count()
        results = executor.map(task_count, numbers, itertools.count(), buffersize=3, chunksize=chunksize)
        assert list(itertools.islice(results, 6)) == list(range(6))
        assert next(numbers) <= (6 + 3) * chunksize
    sizes: list[tuple[Any, type[Exception]]] = [(0, ValueError), (-1, ValueError), ("x", TypeError), (2.0, TypeError)]
    for size, kind in sizes:
        with pytest.raises(kind, match="buffersize must be"):
            executor.map(task_count, [1], [1], buffersize=size)


def test_a_call_that_has_not_begun_is_cancelled(executor: Executor) -> None:
    calls = [executor.submit(task_sleep, 0.05) for _ in range(20)]
    wait_until(calls[-1].running, 5.0, "that it is sent")
    assert not calls[-1].cancel()
    with pytest.raises(futures.CancelledError):
        calls[-1].result(deadline(5))
    assert calls[-1].cancelled()


def test_a_call_is_sent_at_once_while_workers_are_idle_and_queued_beyond_that() -> None:
    with Engine(response_time=3600) as slow, Executor(slow.address) as executor:
        calls = [executor.submit(task_sleep, 0.2) for _ in range(7)]
        assert futures.wait(calls, deadline(20), futures.FIRST_COMPLETED).done <= set(calls[:2])
        assert not futures.wait(calls, deadline(20)).not_done
        assert list(executor.map(task_count, range(10), range(10))) == list(range(10))


def test_in_an_event_loop(executor: Executor) -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, task_count, i, i) for i in range(50)))

    assert asyncio.run(main()) == list(range(50))


def test_a_cancelled_coroutine_cancels_its_call(executor: Executor) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        held = [loop.run_in_executor(executor, task_sleep, 0.2) for _ in range(4)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(executor, task_echo, "never"), 0.01)
        await asyncio.gather(*held)

    asyncio.run(main())


def test_submitting_after_shutdown(engine: Engine) -> None:
    executor = Executor(engine.address)
    future = executor.submit(task_sleep, 0.1)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(task_count, 1, 2)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(task_count, [1], [2], chunksize=2)
    assert future.result(deadline(5)) == 0.1
    executor.shutdown()
    executor.shutdown()


def test_abort_ends_everything_at_once(engine: Engine) -> None:
    executor = Executor(engine.address)
    calls = [executor.submit(task_sleep, 0.5) for _ in range(20)]
    executor.abort()
    assert [type(call.exception(0)) for call in calls] == [Cancelled] * 20
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(task_sleep, 0)


def test_the_last_result_closes_the_connection_after_shutdown_without_wait(engine: Engine) -> None:
    executor = Executor(engine.address)
    before = set(threading.enumerate())
    future = executor.submit(task_sleep, 0.1)
    executor.shutdown(wait=False)
    future.result(deadline(5))
    wait_until(lambda: set(threading.enumerate()) <= before, 5.0, "the end of the connection's thread")


def test_the_end_of_a_program_waits_for_its_calls(engine: Engine) -> None:
    before = sum(executor_stats(engine))
    for last in "", "executor.shutdown(wait=False)":
        ended = run(engine, "for _ in range(30): executor.submit(tasks.task_sleep, 0.01)", last)
        assert (ended.returncode, ended.stderr) == (0, "")
    assert sum(executor_stats(engine)) - before == 60


def test_the_end_of_a_program_does_not_wait_for_an_engine_that_is_gone() -> None:
    with Engine() as gone:
        ended = run(
            gone,
            "import os, time, taskengine.client.transport as transport",
            "transport.CLOSE_S = 0.2",
            "future = executor.submit(tasks.task_sleep, 60)",
            "while not future.running(): time.sleep(0.001)",  # what is not sent waits for another engine
            f"os.kill({gone.process.pid}, {int(signal.SIGKILL)})",
            "try: future.result()",
            "except taskengine.EngineUnreachable: print('lost')",
            "future = executor.submit(tasks.task_sleep, 60)",
        )
        assert (ended.stdout, ended.stderr) == ("lost\n", "")


def executor_stats(engine: Engine) -> list[int]:
    """How many tasks the engine has run, by duration, once it runs none."""
    with Client(engine.address) as client:
        wait_until(lambda: not any(lane.running for lane in client.stats().lanes), 10.0, "an idle engine")
        return client.stats().running.tasks


def test_nothing_is_submitted_after_the_end_of_a_program(engine: Engine) -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "import atexit\n"
            "@atexit.register\n"
            "def last(): executor.submit('task_count', 1, 2)\n"
            f"import taskengine; executor = taskengine.Executor({engine.address!r})\n"
            "print(executor.submit('task_count', 1, 2).result())",
        ],
        capture_output=True,
        text=True,
        timeout=deadline(30),
    )
    assert ended.stdout == "1.5\n"
    assert "RuntimeError: cannot schedule new futures after interpreter shutdown" in ended.stderr


def test_a_forked_child_connects_anew(engine: Engine) -> None:
    ended = run(
        engine,
        "import os",
        "held = [executor.submit(tasks.task_sleep, 0.3) for _ in range(3)]",
        "if os.fork() == 0:",
        "    print(executor.submit(tasks.task_count, 2, 3).result(), repr(held[0].exception(0)), flush=True)",
        "    executor.shutdown()",
        "    os._exit(0)",
        "print([future.result() for future in held], os.wait()[1])",
    )
    child, parent = ended.stdout.splitlines()
    assert child.startswith('2.5 Cancelled("this call was made before the process was forked'), ended
    assert parent == "[0.3, 0.3, 0.3] 0"


def test_ctrl_c_ends_a_program_that_waits(engine: Engine) -> None:
    ended = run(
        engine,
        "import os, signal, threading, time",
        "future = executor.submit(tasks.task_sleep, 1.0)",
        "while not (future.running() or future.done()): time.sleep(0.001)",
        f"threading.Timer(0.3, os.kill, (os.getpid(), {int(signal.SIGINT)})).start()",
        "try: future.result()",
        "except KeyboardInterrupt: print('interrupted', future.running())",
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("interrupted True\n", "", 0)


def test_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskengine.client.executor.CONNECT_S", 0.2)
    with pytest.raises(EngineUnreachable):
        Executor(f"tcp://127.0.0.1:{free_ports(1)}")


def test_imap_yields_in_order_and_reads_as_it_goes(client: Client) -> None:
    numbers = itertools.count()
    results = client.imap("task_count", numbers, itertools.count(), buffersize=10)
    assert list(itertools.islice(results, 100)) == list(range(100))
    assert next(numbers) <= 111
    assert list(client.imap("task_count", range(3000), range(3000))) == list(range(3000))
    assert list(client.imap("task_count", [], [])) == []


def test_imap_raises_in_the_place_of_a_result(client: Client) -> None:
    results = client.imap("task_count", [1, "x", 3], [1, 2, 3])
    assert next(results) == 1.0
    with pytest.raises(TaskFailed):
        next(results)


def test_as_completed_yields_what_has_ended_first(client: Client) -> None:
    slow = client.submit("task_sleep", 0.3)
    client.flush()
    quick = client.submit("task_count", 2, 3)
    assert list(client.as_completed([slow, quick])) == [quick, slow]
    assert set(futures.wait([slow, quick]).done) == {slow, quick}
    assert list(futures.as_completed([quick])) == [quick]
    with pytest.raises(TimeoutError):
        list(client.as_completed([client.submit("task_sleep", 0.2)], timeout=0.01))


def test_imap_with_asyncio(engine: Engine) -> None:
    async def main() -> None:
        async with AsyncClient(engine.address) as client:
            assert [value async for value in client.imap("task_count", range(50), range(50), buffersize=7)] == list(
                range(50)
            )
            with pytest.raises(TaskFailed):
                await anext(client.imap(task_fail.__name__, ["boom"]))
            numbers = itertools.count()
            async for value in client.imap("task_count", numbers, itertools.count(), buffersize=5):
                if value == 20:
                    break
            assert next(numbers) <= 26

    asyncio.run(main())


def test_asyncio_yields_what_has_ended_first(engine: Engine) -> None:
    async def main() -> list[object]:
        async with AsyncClient(engine.address) as client:
            slow = client.submit("task_sleep", 0.3)
            client.flush()
            quick = client.submit("task_count", 2, 3)
            return [await next_one for next_one in asyncio.as_completed([slow, quick])]

    assert asyncio.run(main()) == [2.5, 0.3]


def test_a_call_of_a_closed_client_is_cancelled(engine: Engine) -> None:
    client = Client(engine.address)
    client.close()
    with pytest.raises(Cancelled):
        client.imap("task_count", [1], [1])
