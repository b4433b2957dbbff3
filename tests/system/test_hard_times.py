"""Deaths and wants at bad moments: a worker that no router knows, a pipe that is full, a system that gives nothing."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client, TaskEngineError, WorkerLost
from tests.engine import Engine, alive, deadline, wait_until

pytestmark = pytest.mark.system

LIMIT = deadline(0.5)
QUICK: dict[str, Any] = {"heartbeat_interval": 0.1, "heartbeat_limit": LIMIT}
ARM = """
import os, time
from taskengine import task

@task(lane="arm", timeout=1.0)
def hang(path):
    open(path, "w").close()
    time.sleep(1000)

@task(lane="arm")
def who():
    return os.getpid()
"""


def engine_of(folder: Path, module: str, **settings: Any) -> Engine:
    path = folder / "module.py"
    path.write_text(module)
    return Engine(tasks=f"{path},taskengine.tasks", **settings)


def test_a_timeout_holds_although_the_router_dies(tmp_path: Path) -> None:
    with engine_of(tmp_path, ARM, **QUICK) as engine, Client(engine.address, timeout=deadline(20)) as client:
        arm = client.call("who")
        hanging = client.submit("hang", str(tmp_path / "hangs"))
        client.flush()
        wait_until((tmp_path / "hangs").exists, 20, "the task that hangs")
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        assert isinstance(hanging.exception(), TaskEngineError)
        assert client.call("who") != arm


def test_a_worker_that_stands_still_while_the_router_dies_is_replaced(tmp_path: Path) -> None:
    with engine_of(tmp_path, ARM, **QUICK) as engine, Client(engine.address, timeout=deadline(20)) as client:
        arm = client.call("who")
        os.kill(arm, signal.SIGSTOP)
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        wait_until(lambda: not alive(arm), 20, "the end of the one that stands still")
        with Client(engine.address, timeout=deadline(20)) as other:
            assert other.call("who") != arm


def test_a_lane_that_was_left_out_and_came_back_is_served_after_the_routers_death(tmp_path: Path) -> None:
    with engine_of(tmp_path, ARM) as engine, Client(engine.address, timeout=deadline(20)) as client:
        arm = client.call("who")
        (tmp_path / "module.py").write_text("from taskengine import task\n\n@task\ndef other():\n    return 1\n")
        client.reload()
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        with Client(engine.address, timeout=deadline(20)) as after:
            wait_until(lambda: answers(after), 20, "an answer of the new router")
            (tmp_path / "module.py").write_text(ARM)
            after.reload()
            assert after.call("who") != arm


def answers(client: Client) -> bool:
    try:
        return bool(client.call("task_count", 2, 3))
    except TaskEngineError:
        return False


def test_a_source_that_begins_slowly_is_left_to_begin(tmp_path: Path) -> None:
    module = f"""
import time
from taskengine import source
first = True

@source("slow", period=0.01)
def slow():
    global first
    if first:
        first = False
        time.sleep({3 * LIMIT})
    return 1
"""
    with engine_of(tmp_path, module, **QUICK) as engine, Client(engine.address, timeout=deadline(20)) as client:
        data = engine.pids("data")
        with client.subscribe("slow") as feed:
            assert feed.get(deadline(20)).value == 1
        assert engine.pids("data") == data


@pytest.mark.parametrize("fails", ["sys.exit(3)", "raise Mute()"])
def test_a_source_that_fails_ends_no_data_worker(tmp_path: Path, fails: str) -> None:
    module = f"""
import sys
from taskengine import source

class Mute(Exception):
    def __repr__(self):
        raise ValueError
    __str__ = __repr__

@source("bad", period=0.01)
def bad():
    {fails}

@source("good", period=0.01)
def good():
    return 1
"""
    with engine_of(tmp_path, module) as engine, Client(engine.address, timeout=deadline(20)) as client:
        data = engine.pids("data")
        with client.subscribe("good") as feed:
            for _ in range(5):
                assert feed.get(deadline(20)).value == 1
        wait_until(lambda: "Source bad fails" in engine.output(), 20, "the line that tells of it")
        assert engine.pids("data") == data


def test_a_router_that_does_not_read_does_not_stop_the_supervisor(tmp_path: Path) -> None:
    """The supervisor has more to tell the router than a pipe holds."""
    functions = "\n".join(f'@task\ndef f{n}():\n    """{"word " * 60}"""\n' for n in range(1500))
    with engine_of(tmp_path, f"from taskengine import task\n{functions}", **QUICK) as engine:
        [router] = engine.pids("router")
        os.kill(router, signal.SIGSTOP)
        engine.process.send_signal(signal.SIGHUP)
        wait_until(lambda: engine.pids("router") not in ([router], []), 20, "another router")
        with Client(engine.address, timeout=deadline(20)) as client:
            wait_until(lambda: answers(client), 20, "its answer")


def test_a_system_that_gives_no_descriptors_for_a_while_costs_no_more_than_that(tmp_path: Path) -> None:
    with engine_of(tmp_path, ARM) as engine, Client(engine.address, timeout=deadline(20)) as client:
        arm = client.call("who")
        supervisor = engine.process.pid
        limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (5, limits[1]))
        os.kill(arm, signal.SIGKILL)
        wait_until(lambda: "Cannot start task worker arm 1 (Too many open files)" in engine.output(), 20, "the line")
        engine.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "Not reloaded: the modules cannot be loaded" in engine.output(), 20, "the other line")
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
        assert client.call("who") != arm


def test_signals_under_load_cost_no_process_and_no_reply(tmp_path: Path) -> None:
    """As of a terminal: to all of them, while they send and receive."""
    with Engine(enable_stdout="false") as engine, Client(engine.address, timeout=deadline(20)) as client:
        pids = engine.pids()
        end = time.monotonic() + 2.0
        futures = []
        while time.monotonic() < end:
            futures += [client.submit("task_count", n, n) for n in range(50)]
            client.flush()
            for pid in pids:
                os.kill(pid, signal.SIGINT)
        assert {future.result() for future in futures} == set(range(50))
        assert engine.pids() == pids


def test_the_task_behind_an_overdue_one_is_not_blamed(tmp_path: Path) -> None:
    module = """
import os, time
from taskengine import task

@task(lane="arm", timeout=0.3)
def late(path):
    open(path + ".late", "w").close()
    while not os.path.exists(path):
        time.sleep(0.001)

@task(lane="arm")
def behind(path):
    open(path + ".behind", "w").close()
    time.sleep(1000)
"""
    gate = tmp_path / "gate"
    with (
        engine_of(tmp_path, module, chunking="false") as engine,
        Client(engine.address, timeout=deadline(20)) as client,
    ):
        client.call("task_count", 1, 1)
        engine.process.send_signal(signal.SIGSTOP)
        futures = [client.submit(name, str(gate)) for name in ("late", "behind")]
        client.flush()
        wait_until((tmp_path / "gate.late").exists, 20, "the task that is late")
        time.sleep(deadline(0.6))
        gate.touch()
        wait_until((tmp_path / "gate.behind").exists, 20, "the task behind")
        engine.process.send_signal(signal.SIGCONT)
        assert futures[0].result() is None
        assert isinstance(futures[1].exception(), WorkerLost)
