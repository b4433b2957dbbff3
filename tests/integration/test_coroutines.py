"""`async def` tasks in a running engine: one at a time, and many at once in a lane with a concurrency."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest

from taskengine import BadArguments, Cancelled, Client, TaskTimeout, WorkerLost, aio
from tests.engine import Engine, deadline, wait_until
from tests.integration.seedclient import SeedClient, entries, meta, task

LANES = {"": 1, "io": 20}
TASKS = """
import asyncio, os, signal, time
from taskengine import position, task

gates = {}

def told(path, text):
    with open(path, "a") as file:
        file.write(text)

async def hold(path, seconds):
    told(path, "begun ")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        told(path, "cancelled ")
        raise
    finally:
        told(path, "ended ")
    return seconds

async def deaf(path):
    told(path, "begun ")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            told(path, "cancelled ")

async def last(number):
    "End with the worker: it dies as soon as the answer was sent."
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, os.kill, os.getpid(), signal.SIGKILL)
    return number

async def add(a, b=1):
    await asyncio.sleep(0)
    return a + b

async def meet(name, count):
    "Wait for so many others."
    gates.setdefault(name, [asyncio.Event(), 0])
    gates[name][1] += 1
    if gates[name][1] == count:
        gates[name][0].set()
    await gates[name][0].wait()
    return position()

async def block(seconds):
    time.sleep(seconds)
    return os.getpid()

async def die():
    os._exit(3)

def pid():
    return os.getpid()

for lane in "", "io":
    prefix = lane and lane + "."
    for function in hold, add, last, meet, die, pid:
        task(function, name=prefix + function.__name__, lane=lane)
    task(hold, name=prefix + "brief", lane=lane, timeout=0.3)
    task(hold, name=prefix + "twice", lane=lane, idempotent=True)
    task(deaf, name=prefix + "deaf", lane=lane, timeout=0.3)
    task(block, name=prefix + "block", lane=lane, timeout=5.0)
"""
PREFIXES = pytest.mark.parametrize("prefix", ["", "io."])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    module = tmp_path_factory.mktemp("tasks") / "coroutines.py"
    module.write_text(TASKS)
    with Engine(
        tasks=str(module), task_workers=1, lanes="io=1x20", heartbeat_interval=0.1, heartbeat_limit=deadline(0.5)
    ) as made:
        yield made


class Ledger:
    """A file in which tasks tell what they do."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger"
        self.path.touch()

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> str:
        return self.path.read_text().strip()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: self.read() == text, 10.0, f"{text!r} in the ledger")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@PREFIXES
def test_coroutines_give_results_and_errors_like_functions(client: Client, prefix: str) -> None:
    assert client.map(prefix + "add", range(50), range(50)) == list(range(0, 100, 2))
    with pytest.raises(BadArguments, match=f"{prefix}add: add"):
        client.call(prefix + "add")


def test_a_client_of_wire_01_calls_them(engine: Engine) -> None:
    with SeedClient(engine.address) as seed:
        for name in "add", "io.add":
            reply = seed.ask(meta(type="REQ", length=3), *(task(name, a, 1, pack=f"p{a}") for a in range(3)))
            assert entries(reply) == ["job-p0: 1", "job-p1: 2", "job-p2: 3"]


def test_as_many_as_the_lane_has_places_wait_for_each_other(client: Client) -> None:
    assert client.map("io.meet", ["all"] * LANES["io"], [LANES["io"]] * LANES["io"]) == list(range(LANES["io"]))


def test_a_quick_task_overtakes_slow_ones_and_waits_where_no_place_is_free(client: Client, ledger: Ledger) -> None:
    slow = [client.submit("io.hold", str(ledger), 3600.0) for _ in range(LANES["io"] - 1)]
    ledger.wait_for(" ".join(["begun"] * len(slow)))
    assert client.call("io.add", 1, 2) == 3
    last = client.submit("io.hold", str(ledger), 3600.0)
    ledger.wait_for(" ".join(["begun"] * LANES["io"]))
    waits = client.submit("io.add", 1, 3)
    assert not wait([waits], timeout=0.05).done
    last.cancel()
    assert waits.result(deadline(10.0)) == 4
    assert client.stats().lanes[1].running == len(slow)
    for future in slow:
        future.cancel()
    assert all(isinstance(future.exception(deadline(10.0)), Cancelled) for future in [*slow, last])


@PREFIXES
def test_a_running_task_is_cancelled_by_its_future(client: Client, ledger: Ledger, prefix: str) -> None:
    future = client.submit(prefix + "hold", str(ledger), 3600.0)
    ledger.wait_for("begun")
    future.cancel()
    with pytest.raises(Cancelled, match="while it ran"):
        future.result(deadline(10.0))
    assert ledger.read() == "begun cancelled ended"


@PREFIXES
def test_a_running_task_is_cancelled_when_its_deadline_is_over_too(client: Client, ledger: Ledger, prefix: str) -> None:
    future = client.options(deadline=deadline(0.2)).submit(prefix + "hold", str(ledger), 3600.0)
    ledger.wait_for("begun")
    time.sleep(deadline(0.3))
    assert ledger.read() == "begun", "a deadline is for the start"
    future.cancel()
    with pytest.raises(Cancelled):
        future.result(deadline(10.0))


@PREFIXES
def test_a_running_task_is_cancelled_when_its_client_waits_no_more_or_leaves(
    engine: Engine, ledger: Ledger, prefix: str
) -> None:
    async def main() -> None:
        async with aio.Client(engine.address, timeout=deadline(20.0)) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.call(prefix + "hold", str(ledger), 3600.0), deadline(0.3))

    asyncio.run(main())
    ledger.wait_for("begun cancelled ended")
    leaver = Client(engine.address)
    leaver.submit(prefix + "hold", str(ledger), 3600.0)
    ledger.wait_for("begun cancelled ended begun")
    leaver.close(timeout=0.0)
    ledger.wait_for("begun cancelled ended begun cancelled ended")


@PREFIXES
def test_a_timeout_cancels_the_task_and_its_worker_lives(client: Client, ledger: Ledger, prefix: str) -> None:
    before = client.call(prefix + "pid")
    with pytest.raises(TaskTimeout, match="and was cancelled"):
        client.call(prefix + "brief", str(ledger), 3600.0)
    assert ledger.read() == "begun cancelled ended"
    assert client.call(prefix + "pid") == before


@PREFIXES
def test_a_task_that_does_not_end_when_it_is_cancelled_is_ended_with_its_worker(
    client: Client, ledger: Ledger, prefix: str
) -> None:
    before = client.call(prefix + "pid")
    with pytest.raises(TaskTimeout, match="and was ended with its worker"):
        client.call(prefix + "deaf", str(ledger))
    assert ledger.read() == "begun cancelled"
    assert client.call(prefix + "pid") != before


@PREFIXES
def test_a_task_that_blocks_the_loop_is_no_worker_that_hangs(client: Client, prefix: str) -> None:
    """It is silent for longer than HEARTBEAT_LIMIT."""
    assert client.call(prefix + "block", deadline(0.5) + 0.7) == client.call(prefix + "pid")


def test_what_blocks_the_loop_of_others_is_told(engine: Engine, client: Client) -> None:
    start = len(engine.output())
    client.call("io.block", 1.2)
    wait_until(lambda: "The event loop was blocked for" in engine.output()[start:], 5.0, "a line")


def test_who_dies_takes_along_what_has_begun_and_nothing_else(client: Client, ledger: Ledger, tmp_path: Path) -> None:
    (other := tmp_path / "twice").touch()
    lost = [client.submit("io.hold", str(ledger), 3600.0) for _ in range(LANES["io"] - 2)]
    again = client.submit("io.twice", str(other), deadline(1.0))
    ledger.wait_for(" ".join(["begun"] * len(lost)))
    wait_until(other.read_text, 10.0, "the one that may run again")
    waiting = client.submit("io.die"), client.submit("io.add", 1, 1), client.submit("io.add", 2, 2)
    with pytest.raises(WorkerLost):
        waiting[0].result(deadline(10.0))
    assert all(isinstance(future.exception(deadline(10.0)), WorkerLost) for future in lost)
    assert again.result(deadline(10.0)) == deadline(1.0)
    assert [future.exception(deadline(10.0)) for future in waiting[1:]].count(None) >= 1
    assert other.read_text().split() == ["begun", "begun", "ended"]
    assert ledger.read().split() == ["begun"] * len(lost)


def test_an_answer_that_was_sent_outlives_its_worker(client: Client) -> None:
    assert [client.call("io.last", number) for number in range(5)] == list(range(5))


@PREFIXES
def test_a_coroutine_outlives_its_router_as_any_task_does(engine: Engine, ledger: Ledger, prefix: str) -> None:
    with Client(engine.address, timeout=deadline(20.0)) as client:
        before = client.call(prefix + "pid")
        client.send(prefix + "hold", str(ledger), 1.0)
        ledger.wait_for("begun")
        [router] = engine.pids("router")
        os.kill(router, signal.SIGKILL)
        ledger.wait_for("begun ended")
    with Client(engine.address, timeout=deadline(20.0)) as client:
        wait_until(lambda: len(engine.pids("router")) == 1 and router not in engine.pids("router"), 10.0, "a router")
        assert client.call(prefix + "pid") == before
        assert client.map(prefix + "add", range(100)) == list(range(1, 101))


def test_a_reload_waits_for_coroutines_and_a_stop_cancels_them(tmp_path: Path, ledger: Ledger) -> None:
    module = tmp_path / "robot.py"
    module.write_text(TASKS)
    with Engine(tasks=str(module), task_workers=1, lanes="io=1x20", drain_time=0.2) as engine:
        with Client(engine.address, timeout=deadline(20.0)) as client:
            before = client.call("io.pid")
            running = client.submit("io.hold", str(ledger), 1.0)
            ledger.wait_for("begun")
            client.reload()
            assert running.result(deadline(10.0)) == 1.0
            assert client.call("io.pid") != before
            client.send("io.hold", str(ledger), 3600.0)
            client.send("hold", str(ledger), 3600.0)
            ledger.wait_for("begun ended begun begun")
            engine.stop()
        assert sorted(ledger.read().split()[4:]) == ["cancelled", "cancelled", "ended", "ended"]
