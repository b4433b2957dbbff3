"""Futures of one package are resolved one by one, as their tasks end, against a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from pathlib import Path

import pytest

from taskengine import Cancelled, Client, TaskFailed, WorkerLost, aio
from taskengine.client.session import GIVES_EACH, Session
from tests.engine import Engine, deadline

TASKS = """
import os, signal, time
from pathlib import Path

def task_hold(gate):
    while not Path(gate).exists():
        time.sleep(0.002)
    return "held"

def task_die(number):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    module = tmp_path_factory.mktemp("tasks") / "held.py"
    module.write_text(TASKS)
    with Engine(tasks=f"taskengine.tasks,{module}") as running:
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


def test_a_cancelled_task_is_answered_and_the_others_are_not_touched(client: Client, tmp_path: Path) -> None:
    held = client.submit("task_hold", str(tmp_path / "gate"))
    waiting = [client.submit("task_count", number, 0) for number in range(40)]
    client.flush()
    client.progress()
    waiting[2].cancel()
    client.progress()
    (tmp_path / "gate").touch()
    assert wait([held, *waiting], deadline(20)).not_done == set()
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
