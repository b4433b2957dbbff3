"""What a busy worker has not begun is run by an idle one, and nothing runs twice."""

from __future__ import annotations

import heapq
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client, TaskEngineError, WorkerLost
from tests.engine import Engine, deadline, wait_until

TASKS = """
import os
import time
from pathlib import Path
from typing import Any
from taskengine import task

log = os.open(Path(__file__).with_name("log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@task
def nap(seconds, number=0):
    os.write(log, f"{number} {os.getpid()}\\n".encode())
    time.sleep(seconds)
    return number

@task(lane="single")
def alone(seconds, number):
    os.write(log, f"{number} {os.getpid()}\\n".encode())
    time.sleep(seconds)
"""


def engine_of(folder: Path, workers: int, **settings: Any) -> Engine:
    (folder / "naps.py").write_text(TASKS)
    return Engine(cwd=folder, tasks="naps.py", task_workers=workers, enable_stdout="false", **settings)


def ran(folder: Path) -> list[tuple[int, int]]:
    """The number and the process of each task that ran, in the order of their beginnings."""
    return [(int(number), int(pid)) for number, pid in map(str.split, (folder / "log").read_text().splitlines())]


def ideal(seconds: Sequence[float], workers: int) -> float:
    """How long it takes where whoever is free takes the next task (list scheduling)."""
    free = [0.0] * workers
    for cost in seconds:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def _has_others(engine: Engine, before: list[int]) -> bool:
    return engine.pids("task") != before


@pytest.mark.alone
def test_naps_end_as_if_each_worker_took_the_next(tmp_path: Path) -> None:
    naps = [0.02 * number for number in range(20)]
    with engine_of(tmp_path, 5) as engine, Client(engine.address, timeout=deadline(30)) as client:
        client.map("nap", [0.0] * 5)
        began = time.monotonic()
        futures = [client.submit("nap", seconds) for seconds in naps]
        for future in futures:
            future.result()
        took = time.monotonic() - began
    assert took < deadline(1.15 * ideal(naps, 5))
    assert len({pid for _, pid in ran(tmp_path)[-20:]}) == 5


@pytest.mark.alone
@pytest.mark.parametrize("size", [10, 50, 500])
def test_a_heavy_head_is_shared_at_any_size_of_chunks(tmp_path: Path, size: int) -> None:
    naps = [0.005] * 40 + [0.0] * 1000
    with engine_of(tmp_path, 2, chunking_size=size) as engine, Client(engine.address, timeout=deadline(30)) as client:
        client.map("nap", [0.0] * 5)
        client.map("nap", naps, range(100, 100 + len(naps)))
    heavy = Counter(pid for number, pid in ran(tmp_path) if 100 <= number < 140)
    assert min(heavy.values()) >= 4, f"one worker had most of the long tasks: {heavy}"
    assert len(heavy) == 2


def test_each_task_runs_once_whatever_dies(tmp_path: Path) -> None:
    dice = random.Random(7)
    naps = [dice.choice([0.0, 0.0, 0.002, 0.01]) for _ in range(600)]
    with engine_of(tmp_path, 3, chunking_size=100) as engine, Client(engine.address, timeout=deadline(60)) as client:
        future = client.submit("nap", 0.0, -1)
        future.result()
        results = client.options(errors="return")
        pending = [results.submit("nap", seconds, number) for number, seconds in enumerate(naps)]
        for _ in range(2):
            before = engine.pids("task")
            wait_until(lambda: len(ran(tmp_path)) > 50, 20, "tasks that run")
            os.kill(random.Random(1).choice(before), signal.SIGKILL)
            wait_until(partial(_has_others, engine, before), 20, "another worker")
        answers: list[int | TaskEngineError] = []
        for each in pending:
            try:
                answers.append(each.result())
            except WorkerLost as lost:
                answers.append(lost)
    times = Counter(number for number, _ in ran(tmp_path))
    assert max(times.values()) == 1, "a task ran twice"
    for number, answer in enumerate(answers):
        assert isinstance(answer, WorkerLost) or (answer == number and times[number] == 1)
    assert sum(isinstance(answer, WorkerLost) for answer in answers) <= 2


def test_a_lane_with_one_worker_keeps_its_order(tmp_path: Path) -> None:
    with (
        engine_of(tmp_path, 2, lanes="single=1", chunking_size=5) as engine,
        Client(engine.address, timeout=deadline(30)) as client,
    ):
        client.map("alone", [0.0005] * 100, range(100))
    assert [number for number, _ in ran(tmp_path)] == list(range(100))
