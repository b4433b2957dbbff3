"""New task modules in a running engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client, TaskFailed, UnknownTask
from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.system

OLD = """
import time
from taskengine import task

@task
def version(seconds=0.0):
    time.sleep(seconds)
    return "old"

@task(lane="arm")
def only_old(): return 1
"""
NEW = """
import os, time
from taskengine import task

@task
def version(seconds=0.0):
    time.sleep(seconds)
    return "new"

@task(lane="arm")
def fresh(): return os.getpid()

@task
def pid(): return os.getpid()
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "robot.py"
    path.write_text(OLD)
    return path


@pytest.fixture
def engine(module: Path) -> Iterator[Engine]:
    with Engine(tasks=module, drain_time=deadline(5)) as engine:
        wait_until(lambda: len(engine.pids("worker")) == 4, 10, "the worker of lane arm, too")
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(30)) as client:
        yield client


def rewrite(module: Path, text: str) -> None:
    """As an editor does; what Python compiled before is known by the time of the file."""
    module.write_text(text)
    stat = module.stat()
    os.utime(module, ns=(stat.st_atime_ns, stat.st_mtime_ns + 2 * 10**9))


def test_a_reload_renews_every_worker_and_drops_no_task(engine: Engine, client: Client, module: Path) -> None:
    before = engine.pids("worker")
    futures: list[Future[Any]] = [client.submit("version", 0.02) for _ in range(200)]
    client.flush()
    rewrite(module, NEW)
    client.reload()
    results = [future.result() for future in futures]
    assert set(results) <= {"old", "new"}
    assert set(client.map("version", [0.0] * 100)) == {"new"}
    workers = engine.pids("worker")
    assert len(workers) == len(before)
    assert not set(before) & set(workers)
    assert {task.name for task in client.tasks()} == {"version", "fresh", "pid"}
    assert client.call("fresh") in workers
    assert client.call("fresh") not in {client.call("pid") for _ in range(4)}
    with pytest.raises(UnknownTask):
        client.call("only_old")
    assert engine.output().count("Renewing process") == len(before)


def test_a_signal_reloads_too(engine: Engine, client: Client, module: Path) -> None:
    rewrite(module, NEW)
    engine.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Reloaded the task modules" in engine.output(), 20, "the reload")
    assert client.call("version") == "new"


def test_a_command_reloads_too(engine: Engine, client: Client, module: Path) -> None:
    rewrite(module, NEW)
    command = [sys.executable, "-m", "taskengine", "reload", "--address", engine.address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "reloaded\n", "")
    assert client.call("version") == "new"
    rewrite(module, "import nothing_like_this")
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "nothing_like_this" in failed.stderr


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("this is no Python", "robot.py"),
        ("import os; os._exit(3)", r"robot.py: it ended the process that loaded it \(exit code 3\)"),
        (NEW.replace('"arm"', '"leg"'), "a new lane, leg, takes a restart"),
    ],
)
def test_what_does_not_load_changes_nothing(
    engine: Engine, client: Client, module: Path, text: str, problem: str
) -> None:
    workers = engine.pids("worker")
    rewrite(module, text)
    with pytest.raises(TaskFailed, match=problem) as caught:
        client.reload()
    assert caught.value.type == "TaskModuleError"
    assert engine.pids("worker") == workers
    assert client.call("version") == "old"
    rewrite(module, NEW)
    client.reload()
    assert client.call("version") == "new"


def test_a_long_task_ends_in_peace_and_its_worker_is_renewed_then(module: Path) -> None:
    with Engine(tasks=module, drain_time=0.2) as engine, Client(engine.address, timeout=deadline(30)) as client:
        long = client.submit("version", deadline(2.0))
        client.flush()
        wait_until(client.progress, 10, "the task")
        before = engine.pids("worker")
        rewrite(module, NEW)
        client.reload()
        assert not long.done()
        assert set(client.map("version", [0.0] * 30)) == {"new"}
        assert long.result() == "old"
        wait_until(lambda: not set(before) & set(engine.pids("worker")), 10, "the last worker")
        assert set(client.map("version", [0.0] * 30)) == {"new"}


def test_a_router_that_dies_meanwhile_leaves_no_old_worker(engine: Engine, client: Client, module: Path) -> None:
    before = engine.pids("worker")
    futures = [client.options(idempotent=True).submit("version", 0.5) for _ in range(2)]
    client.flush()
    wait_until(client.progress, 10, "the tasks")
    rewrite(module, NEW)
    engine.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Renewing" in engine.output(), 20, "the reload's begin")
    os.kill(engine.pids("router")[0], signal.SIGKILL)
    wait_until(lambda: "Reloaded the task modules" in engine.output(), 20, "the reload's end")
    assert {future.result() for future in futures} <= {"old", "new"}
    wait_until(lambda: not set(before) & set(engine.pids("worker")), 20, "the last worker")
    assert set(client.map("version", [0.0] * 30)) == {"new"}
    assert "fresh" in {task.name for task in client.tasks()}
