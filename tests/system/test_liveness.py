"""Workers and routers that stand still, and what becomes of those that only seem to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client, EngineUnreachable, TaskEngineError, WorkerLost
from tests.engine import Engine, alive, deadline, wait_until

pytestmark = pytest.mark.system

INTERVAL = 0.1
LIMIT = deadline(0.5)
MODULE = """
import os, time
from taskengine import task, source

@task
def nap(seconds, path=""):
    if path:
        with open(path, "a") as notes:
            notes.write(f"{os.getpid()}\\n")
    time.sleep(seconds)
    return os.getpid()

@task(lane="arm")
def who(path=""):
    return nap(0, path)

@task(lane="arm")
def hold(path):
    with open(path + ".holding", "w") as held:
        held.write(str(os.getpid()))
    os.rename(path + ".holding", path + ".held")
    while not os.path.exists(path):
        time.sleep(0.001)
    return os.getpid()
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    module = tmp_path / "naps.py"
    module.write_text(MODULE)
    with Engine(tasks=module, heartbeat_interval=INTERVAL, heartbeat_limit=LIMIT) as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        yield client


def stopped_and_replaced(engine: Engine, role: str) -> int:
    before = engine.pids(role)
    victim = before[0]
    os.kill(victim, signal.SIGSTOP)
    wait_until(lambda: not alive(victim), 20, "the end of what stands still")
    wait_until(lambda: len(engine.pids(role)) == len(before), 20, "the one that replaces it")
    return victim


@pytest.mark.parametrize("role", ["task", "data"])
def test_a_worker_that_is_stopped_between_tasks_is_replaced(engine: Engine, client: Client, role: str) -> None:
    wait_until(lambda: all(lane.online == lane.workers for lane in client.stats().lanes), 20, "all workers")
    victim = stopped_and_replaced(engine, role)
    assert f"{'DATA' if role == 'data' else 'TASK'}-{victim} has been silent" in engine.output()
    assert client.map("nap", [0.0] * 100)
    client.publish("topic", 1)
    assert client.latest("topic") == 1


def test_a_worker_that_is_stopped_in_a_task_loses_that_task_alone(
    engine: Engine, client: Client, tmp_path: Path
) -> None:
    path = str(tmp_path / "gate")
    holding = client.submit("hold", path)
    others = [client.submit("who") for _ in range(3)]
    client.flush()
    wait_until(lambda: Path(f"{path}.held").exists(), 10, "the task that holds the lane")
    lane = int(Path(f"{path}.held").read_text())
    os.kill(lane, signal.SIGSTOP)
    with pytest.raises(WorkerLost):
        holding.result()
    assert lane not in {other.result() for other in others}
    assert "stopped in a task" in engine.output()


def test_a_task_without_a_timeout_runs_for_as_long_as_it_likes(engine: Engine, client: Client) -> None:
    workers = engine.pids("task")
    assert client.call("nap", 6 * LIMIT) in workers
    assert engine.pids("task") == workers


def test_a_whole_engine_that_is_stopped_goes_on(engine: Engine, client: Client) -> None:
    pids = [engine.process.pid, *engine.pids()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3 * LIMIT)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert len(client.map("nap", [0.0] * 100)) == 100
    time.sleep(3 * LIMIT)
    assert sorted([engine.process.pid, *engine.pids()]) == sorted(pids)


def test_a_router_that_is_stopped_is_replaced_and_the_workers_stay(engine: Engine, client: Client) -> None:
    workers = engine.pids("task")
    stopped_and_replaced(engine, "router")
    assert set(client.map("nap", [0.01] * 40)) <= set(workers)
    assert engine.pids("task") == workers


def test_workers_join_the_new_router_and_run_nothing_of_the_old_one(
    engine: Engine, client: Client, tmp_path: Path
) -> None:
    workers, notes = engine.pids("task"), tmp_path / "notes"
    path = str(tmp_path / "gate")
    holding = client.submit("hold", path)
    behind = [client.submit("who", str(notes)) for _ in range(20)]
    client.flush()
    wait_until(lambda: Path(f"{path}.held").exists(), 10, "the task that holds the lane")
    (router,) = engine.pids("router")
    os.kill(router, signal.SIGKILL)
    killed = time.monotonic()
    for future in [holding, *behind]:
        with pytest.raises(EngineUnreachable):
            future.result()
    assert time.monotonic() - killed < deadline(2.0)
    assert client.call("nap", 0.0) in workers
    after = client.submit("who", str(notes))
    client.flush()
    Path(path).touch()
    assert after.result() in workers
    assert len(notes.read_text().split()) == 1, "what the old router sent ran"
    assert engine.pids("task") == workers


def test_a_package_that_may_run_twice_survives_its_router(engine: Engine, client: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "gate")
    holding = client.options(idempotent=True).submit("hold", path)
    client.flush()
    wait_until(lambda: Path(f"{path}.held").exists(), 10, "the task that holds the lane")
    (router,) = engine.pids("router")
    os.kill(router, signal.SIGKILL)
    wait_until(lambda: router not in engine.pids("router") and engine.pids("router"), 10, "the next router")
    Path(path).touch()
    assert holding.result() in engine.pids("task")


def test_a_router_that_has_served_is_replaced_at_once_however_often_it_dies(engine: Engine, client: Client) -> None:
    patient = client.options(timeout=deadline(20))
    for _ in range(6):
        assert patient.call("nap", 0.0)
        time.sleep(3 * INTERVAL)  # it has told the supervisor that it serves
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        killed = time.monotonic()
        while True:
            try:
                patient.call("nap", 0.0)
                break
            except TaskEngineError:
                continue
        assert time.monotonic() - killed < deadline(2.0)
