"""An engine that gets more work than it can do, and then no more."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import zmq

from taskengine import Cancelled, Client, Overloaded, TaskTimeout, WorkerLost, aio
from taskengine.protocol.messages import Request, RequestKind, encode_request
from taskengine.router.tuning import UNREAD_BYTES
from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.system

GATE = """
import os, time
from taskengine import task

@task(lane="arm")
def hold(path):
    with open(path + ".holding", "w") as held:
        held.write(str(os.getpid()))
    os.rename(path + ".holding", path + ".held")
    while not os.path.exists(path):
        time.sleep(0.001)

@task(lane="arm")
def note(path, n):
    with open(path + ".notes", "a") as notes:
        notes.write(f"{n}\\n")
    return n
"""


class Held:
    """A lane whose only worker runs a task until it is let go; what waits behind it notes that it ran."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate")

    def close(self, client: Client) -> Future[Any]:
        held = client.submit("hold", self.path)
        client.flush()
        wait_until(lambda: Path(f"{self.path}.held").exists(), 10, "the task that holds the lane")
        return held

    def open(self) -> None:
        Path(self.path).touch()

    def notes(self) -> list[int]:
        notes = Path(f"{self.path}.notes")
        return [int(line) for line in notes.read_text().split()] if notes.exists() else []


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    module = tmp_path / "gated.py"
    module.write_text(GATE)
    with Engine(tasks=f"{module},taskengine.tasks", client_tasks=100) as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        yield client


def test_past_the_limit_a_package_is_refused_whole_and_the_rest_is_untouched(client: Client, held: Held) -> None:
    holding = held.close(client)
    queued = [client.submit("note", held.path, n) for n in range(90)]
    client.flush()
    wait_until(lambda: sum(count for *_, count in client.progress()) == 91, 10, "what is queued")
    with pytest.raises(Overloaded, match="91 tasks in flight, and may have 100") as caught:
        client.map("task_echo", range(10))
    assert (caught.value.in_flight, caught.value.limit) == (91, 100)
    assert caught.value.retry_after > 0
    with pytest.raises(Overloaded, match="CLIENT_TASKS is 100") as caught:
        client.map("task_echo", range(101))
    assert caught.value.retry_after is None
    assert client.map("task_echo", range(9)) == list(range(9))
    held.open()
    assert holding.result() is None
    assert [future.result() for future in queued] == list(range(90))
    assert client.map("task_echo", range(100)) == list(range(100))


def test_a_greedy_client_leaves_room_to_others(tmp_path: Path, held: Held) -> None:
    module = tmp_path / "gated.py"
    module.write_text(GATE)
    with (
        Engine(tasks=f"{module},taskengine.tasks", queue_tasks=150) as engine,
        Client(engine.address, timeout=deadline(20)) as client,
        Client(engine.address, name="OTHER", timeout=deadline(20)) as other,
    ):
        holding = held.close(client)
        greedy = [client.submit("note", held.path, n) for n in range(74)]
        client.flush()
        wait_until(lambda: sum(count for *_, count in client.progress()) == 75, 10, "what is queued")
        with pytest.raises(Overloaded, match="QUEUE_TASKS"):
            client.call("task_echo", 1)
        assert other.map("task_echo", range(70)) == list(range(70))
        held.open()
        assert [future.result() for future in [holding, *greedy]] == [None, *range(74)]


def test_futures_are_cancelled_and_their_tasks_never_run(client: Client, held: Held) -> None:
    holding = held.close(client)
    futures = [client.submit("note", held.path, n) for n in range(40)]
    client.flush()
    wait_until(lambda: all(future.running() for future in futures), 10, "that all are sent")
    assert [future.cancel() for future in futures[10:30]] == [False] * 20
    for future in futures[30:]:
        client.cancel(future)
    client.info()
    assert not holding.cancel()
    held.open()
    assert holding.result() is None
    assert [future.result() for future in futures[:10]] == list(range(10))
    for future in futures[10:]:
        assert isinstance(future.exception(), Cancelled)
    assert held.notes() == list(range(10))


def test_every_other_of_many_futures_is_cancelled(tmp_path: Path) -> None:
    held, module = Held(tmp_path), tmp_path / "gate.py"
    module.write_text(GATE)
    with (
        Engine(tasks=f"{module},taskengine.tasks") as engine,
        Client(engine.address, timeout=deadline(20)) as client,
        Client(engine.address, name="OTHER", timeout=deadline(20)) as other,
    ):
        holding = held.close(client)
        [router] = engine.pids("router")
        futures = [client.submit("note", held.path, n) for n in range(3000)]
        client.flush()
        wait_until(lambda: all(future.running() for future in futures), 10, "that all are sent")
        assert not any(future.cancel() for future in futures[::2])
        assert other.map("task_echo", range(10)) == list(range(10))
        client.info()
        held.open()
        assert holding.result() is None
        assert all(isinstance(future.exception(), Cancelled) for future in futures[::2])
        assert [future.result() for future in futures[1::2]] == [*range(1, 3000, 2)]
        assert held.notes() == [*range(1, 3000, 2)]
        assert engine.pids("router") == [router]


def held_for_unread(client: Client, times: int) -> int:
    """The bytes that the router holds, where it says the same so many times in a row; 0 while it does not.

    It takes the connections in turn, so what another one has sent is answered meanwhile.
    """
    told = {client.stats().bytes_in_flight for _ in range(times)}
    return told.pop() if len(told) == 1 else 0


def test_replies_that_nobody_reads_are_refused_after_a_bound(tmp_path: Path) -> None:
    module = tmp_path / "told.py"
    module.write_text(f'from taskengine import task\n\n@task\ndef told():\n    """{"long " * 20_000}"""\n')
    with (
        Engine(tasks=str(module)) as engine,
        Client(engine.address, timeout=deadline(20)) as client,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as lazy,
    ):
        lazy.rcvhwm, lazy.linger, lazy.rcvtimeo = 1, 0, int(deadline(20) * 1000)
        lazy.connect(engine.address)
        for number in range(1, 1000):
            lazy.send(encode_request(Request(RequestKind.TASKS, number, "LAZY")))
        assert [info.name for info in client.tasks()] == ["told"]
        wait_until(lambda: held_for_unread(client, 20) > UNREAD_BYTES // 4, 20, "the answer to the last")
        replies = [lazy.recv_multipart() for _ in range(1, 1000)]
    assert any(b"not read" in reply[0] for reply in replies)
    assert sum(len(frame) for frames in replies for frame in frames) < 4 * UNREAD_BYTES


def test_what_is_still_queued_in_the_client_is_cancelled_for_certain(client: Client, held: Held) -> None:
    held.close(client)
    client._queue._response_time = 1e9  # it is not sent by itself
    future = client.submit("note", held.path, 1)
    assert future.cancel()
    assert future.cancelled()
    held.open()
    assert client.call("note", held.path, 2) == 2
    assert held.notes() == [2]


def test_what_its_client_does_not_wait_for_any_more_never_begins(client: Client, held: Held) -> None:
    holding = held.close(client)
    impatient = client.options(timeout=0.2)
    future = impatient.submit("note", held.path, 1)
    assert isinstance(future.exception(), TaskTimeout)
    with pytest.raises(TaskTimeout):
        impatient.call("note", held.path, 2)
    with pytest.raises(TaskTimeout):
        impatient.map("note", [held.path] * 9, range(9))
    last = client.submit("note", held.path, 3)
    client.flush()
    wait_until(lambda: sum(count for *_, count in client.progress()) == 2, 10, "that the rest is gone")
    held.open()
    assert (holding.result(), last.result()) == (None, 3)
    assert held.notes() == [3]


def test_everything_of_a_client_is_cancelled_at_once(engine: Engine, client: Client, held: Held) -> None:
    holding = held.close(client)
    futures = [client.submit("note", held.path, n) for n in range(40)]
    with Client(engine.address, name="OTHER", timeout=deadline(20)) as other:
        others = other.submit("note", held.path, 77)
        other.flush()
        wait_until(lambda: other.progress(), 10, "the other's task")
        client.flush()
        wait_until(lambda: all(future.running() for future in futures), 10, "that all are sent")
        client.cancel()
        held.open()
        assert holding.result() is None
        assert others.result() == 77
    for future in futures:
        assert isinstance(future.exception(), Cancelled)
    assert held.notes() == [77]


def test_who_awaits_a_package_and_is_cancelled_cancels_it(engine: Engine, client: Client, held: Held) -> None:
    holding = held.close(client)

    async def impatient() -> None:
        async with aio.Client(engine.address, timeout=deadline(20)) as engine_:
            package = asyncio.create_task(engine_.map("note", [held.path] * 30, range(30)))
            call = asyncio.create_task(engine_.call("note", held.path, 31))
            while sum(count for *_, count in await engine_.progress()) < 31:
                await asyncio.sleep(0.01)
            for task in (package, call):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            while await engine_.progress():
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(impatient(), deadline(20)))
    held.open()
    assert holding.result() is None
    assert held.notes() == []


def test_a_stopping_engine_does_not_wait_for_a_lane_without_workers(tmp_path: Path, held: Held) -> None:
    module = tmp_path / "gated.py"
    module.write_text(GATE)
    with (
        Engine(tasks=f"{module},taskengine.tasks", drain_time=deadline(60)) as engine,
        Client(engine.address, timeout=deadline(20)) as client,
    ):
        holding = held.close(client)
        queued = [client.submit("note", held.path, n) for n in range(5)]
        client.flush()
        wait_until(lambda: sum(count for *_, count in client.progress()) == 6, 10, "what is queued")
        engine.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Closing application" in engine.output(), 10, "the stop")
        with pytest.raises(Overloaded, match="stopping"):
            client.call("task_echo", 1)
        os.kill(int(Path(f"{held.path}.held").read_text()), signal.SIGKILL)
        assert isinstance(holding.exception(), WorkerLost)
        for future in queued:
            with pytest.raises(Overloaded, match="stopping"):
                future.result()
        assert engine.process.wait(deadline(20)) == 0
    assert held.notes() == []
