"""Futures of one package are resolved one by one, as their tasks end, against a real engine."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from pathlib import Path
from typing import Any

import pytest

from taskengine import Cancelled, Client, TaskFailed, WorkerLost, aio
from taskengine.client.session import GIVES_EACH, Session
from tests.engine import Engine, deadline, wait_until

TASKS = """
import os, signal, time
from pathlib import Path

from taskengine import task

def task_hold(gate):
    while not Path(gate).exists():
        time.sleep(0.002)
    return "held"

def task_die(number):
    os.kill(os.getpid(), signal.SIGKILL)

@task(name="queue.task_hold", lane="queue")
def held_in_line(gate):
    return task_hold(gate)

@task(name="queue.task_die", lane="queue")
def dies_in_line(number):
    task_die(number)

@task(name="queue.task_echo", lane="queue")
def said_in_line(value):
    return value

@task(name="queue.task_tell_time", lane="queue")
def tell_time(seconds):
    time.sleep(seconds)
    return time.monotonic()
"""
WORKERS = 2


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    module = tmp_path_factory.mktemp("tasks") / "held.py"
    module.write_text(TASKS)
    with Engine(tasks=f"taskengine.tasks,{module}", task_workers=WORKERS, lanes="queue=1") as running:
        yield running


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(30)) as made:
        made.call("task_count", 2, 3)
        yield made


def test_a_quick_call_does_not_wait_for_a_long_one(client: Client, tmp_path: Path) -> None:
    quick, failed = client.submit("task_count", 2, 3), client.submit("task_fail")
    held = client.submit("task_hold", str(tmp_path / "gate"))
    for future in as_completed([quick, failed], deadline(20)):
        assert not held.done()
        assert future is quick or isinstance(future.exception(), TaskFailed)
    (tmp_path / "gate").touch()
    assert held.result(deadline(20)) == "held"


def test_the_standard_librarys_wait_and_as_completed(client: Client, tmp_path: Path) -> None:
    gates = [tmp_path / f"gate{number}" for number in range(2)]
    futures = [client.submit("task_hold", str(gate)) for gate in gates]
    gates[1].touch()
    done, others = wait(futures, deadline(20), FIRST_COMPLETED)
    assert (done, others) == ({futures[1]}, {futures[0]})
    ended = as_completed(futures, deadline(20))
    assert next(ended) is futures[1]
    gates[0].touch()
    assert next(ended) is futures[0]


def test_asyncio_as_well(engine: Engine, tmp_path: Path) -> None:
    async def calls() -> None:
        async with aio.Client(engine.address, timeout=deadline(30)) as client:
            held = client.submit("task_hold", str(tmp_path / "gate"))
            quick = client.submit("task_count", 2, 3)
            assert await quick == 2.5
            assert not held.done()
            (tmp_path / "gate").touch()
            assert await held == "held"

    asyncio.run(calls())


def one_after_the_other(client: Client, gates: list[Path]) -> list[Future[Any]]:
    """Tasks that one worker has in one batch: each ends when its gate opens, and begins after the one before."""
    return [client.submit("queue.task_hold", str(gate)) for gate in gates]


def test_what_a_worker_has_finished_does_not_wait_for_what_it_runs(client: Client, tmp_path: Path) -> None:
    gates = [tmp_path / f"gate{number}" for number in range(4)]
    futures = one_after_the_other(client, gates)
    client.flush()
    for gate, future in zip(gates, futures, strict=True):
        assert not future.done()
        gate.touch()
        assert future.result(deadline(20)) == "held"
    assert client.stats().in_flight == 0


def test_a_worker_that_dies_later_takes_nothing_back(client: Client, tmp_path: Path) -> None:
    gates = [tmp_path / f"gate{number}" for number in range(3)]
    futures = one_after_the_other(client, gates)
    after = [client.submit("queue.task_die", 1), client.submit("queue.task_echo", 2)]
    gates[0].touch()
    assert futures[0].result(deadline(20)) == "held"
    for gate in gates:
        gate.touch()
    assert [future.result(deadline(20)) for future in futures] == ["held"] * 3
    assert isinstance(after[0].exception(deadline(20)), WorkerLost)
    assert after[1].result(deadline(20)) == 2
    wait_until(lambda: client.stats().lanes[-2].online == 1, 20, "the next worker")


@pytest.mark.alone
def test_finished_results_come_within_five_milliseconds(client: Client) -> None:
    def delay() -> float:
        futures = [client.submit("queue.task_tell_time", 0.02) for _ in range(20)]
        delays: list[float] = [time.monotonic() - future.result() for future in as_completed(futures, deadline(20))]
        return statistics.median(delays)

    assert min(delay() for _ in range(3)) < deadline(0.005)


@pytest.mark.alone
def test_an_engine_that_waits_for_nothing_early_does_not_wake_up(
    engine: Engine, client: Client, tmp_path: Path
) -> None:
    held = [client.submit("task_hold", str(tmp_path / "gate")) for _ in range(WORKERS)]
    wait_until(lambda: client.stats().lanes[0].busy == WORKERS, 20, "all workers to be held")
    (router,) = engine.pids("router")
    idle = wakeups(router, 0.5)
    behind = client.submit("task_echo", 1), client.submit("task_echo", 2)
    held_in_line = [client.submit("queue.task_hold", str(tmp_path / "gate")) for _ in range(3)]
    wait_until(lambda: client.stats().lanes[-2].busy == 1, 20, "the queue to be held")
    watching = wakeups(router, 0.5)
    (tmp_path / "gate").touch()
    assert wait([*held, *behind, *held_in_line], deadline(20)).not_done == set()
    assert idle < 40, "as often as an engine that has nothing to do"
    assert watching > 3 * idle


def wakeups(pid: int, seconds: float) -> int:
    """How often a process has waited for something in so many seconds."""

    def so_far() -> int:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    before, end = so_far(), time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, 2 * seconds, "time to pass")
    return so_far() - before


def test_a_cancelled_task_is_answered_and_the_others_are_not_touched(client: Client, tmp_path: Path) -> None:
    held = [client.submit("task_hold", str(tmp_path / "gate")) for _ in range(WORKERS)]
    wait_until(lambda: client.stats().lanes[0].busy == WORKERS, 20, "all workers to be held")
    waiting = [client.submit("task_count", number, 0) for number in range(40)]
    client.flush()
    client.progress()
    waiting[2].cancel()
    client.progress()
    (tmp_path / "gate").touch()
    assert wait([*held, *waiting], deadline(20)).not_done == set()
    assert isinstance(waiting.pop(2).exception(), Cancelled)
    assert [future.result() for future in waiting] == [number / 2 for number in range(40) if number != 2]


def test_whoever_dies_everybody_gets_one_answer(client: Client) -> None:
    futures = [client.submit("task_die" if number % 20 == 9 else "task_echo", number) for number in range(60)]
    assert wait(futures, deadline(60)).not_done == set()
    for number, future in enumerate(futures):
        error = future.exception()
        assert error is None or isinstance(error, WorkerLost)
        assert error is not None or future.result() == number
    assert sum(future.exception() is not None for future in futures) >= 3
    assert client.stats().bytes_in_flight == 0


def test_an_engine_that_gives_one_reply_is_served_as_before(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Session, "_gives_each", property(lambda _: False, lambda _, value: None), raising=False)
    with Client(engine.address, timeout=deadline(30)) as client:
        futures = [client.submit("task_count", number, 0) for number in range(50)]
        assert [future.result(deadline(20)) for future in futures] == [number / 2 for number in range(50)]
        assert GIVES_EACH in client.info().capabilities
