"""Descriptors that a task can reach in its process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client, TaskEngineError
from tests.engine import Engine, deadline, wait_until

TASKS = """
import contextlib, os, pathlib, stat


def task_files():
    links = []
    for entry in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(os.readlink(entry))
    return sorted(links)


def task_garbage():
    for fd in range(3, 256):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.set_blocking(fd, False)
                os.write(fd, b"\\xff" * 64)
    return os.getpid()
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "reach.py").write_text(TASKS)
    with Engine(tasks=f"taskengine.tasks,{tmp_path / 'reach.py'}") as engine:
        yield engine


def test_a_worker_has_no_descriptor_of_the_supervisor(engine: Engine) -> None:
    with Client(engine.address, timeout=deadline(10)) as client:
        files = client.call("task_files")
    assert "anon_inode:[pidfd]" not in files
    # ZeroMQ's two threads poll with one each; the supervisor's own would be a third
    assert files.count("anon_inode:[eventpoll]") <= 2


def test_garbage_in_all_that_a_worker_has_open_ends_that_worker_alone(engine: Engine) -> None:
    others = set(engine.pids("router")) | set(engine.pids("data"))
    with Client(engine.address, timeout=deadline(20)) as client:
        with contextlib.suppress(TaskEngineError):
            client.call("task_garbage")
        wait_until(lambda: "a report has at most 65536 bytes" in engine.output(), 10, "its end")
        wait_until(lambda: len(engine.pids("task")) == 2, 10, "another worker")
        assert client.call("task_echo", 1) == 1
    assert others <= set(engine.pids())
    assert engine.process.poll() is None
