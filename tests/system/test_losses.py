"""A worker that ends costs the task that ended it, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

from taskengine import Client, TaskEngineError, TaskFailed, TaskTimeout, WorkerLost
from taskengine.client.calls import Call
from tests.engine import Engine, deadline, wait_until
from tests.integration.seedclient import SeedClient

pytestmark = pytest.mark.system

POISON = """
import os, time
from taskengine import task

@task(name="die")
def die(path, deaths):
    with open(path, "a") as ledger:
        ledger.write("x")
    if os.path.getsize(path) <= deaths:
        os.kill(os.getpid(), 9)
    return os.path.getsize(path)

@task(name="die.again", idempotent=True)
def die_again(path, deaths):
    return die(path, deaths)

@task(name="hang", timeout=0.3)
def hang(seconds):
    time.sleep(seconds)
    return seconds

@task(name="hang.deaf", timeout=0.3)
def hang_deaf():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass

@task(name="huge")
def huge():
    return bytes(2**30)

@task(name="exit")
def exit():
    os._exit(3)

@task(name="crash")
def crash():
    import ctypes
    ctypes.string_at(0)
"""


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    module = tmp_path_factory.mktemp("tasks") / "poison.py"
    module.write_text(POISON)
    with Engine(tasks=f"{module},taskengine.tasks") as engine:
        yield engine


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def test_a_lost_task_is_run_again_only_where_it_may_and_not_for_ever(poisoned: Engine, ledger: str) -> None:
    with Client(poisoned.address, timeout=deadline(20)) as client:
        with pytest.raises(WorkerLost):
            client.call("die", ledger, 9)
        assert Path(ledger).read_text() == "x"
        assert client.call("die.again", ledger, 2) == 3
        assert client.options(idempotent=True).call("die", ledger, 4) == 5
        with pytest.raises(WorkerLost):
            client.call("die.again", ledger, 99)
        assert Path(ledger).read_text() == "x" * 7


@pytest.mark.parametrize(
    ("poison", "error"),
    [("crash", WorkerLost), ("exit", WorkerLost), ("hang.deaf", TaskTimeout), ("huge", TaskFailed)],
)
def test_the_neighbours_of_a_poison_task_have_their_results(
    poisoned: Engine, poison: str, error: type[TaskEngineError]
) -> None:
    with Client(poisoned.address, timeout=deadline(20)) as client:
        calls: list[Call] = [("task_count", (n, n), {}) for n in range(200)]
        calls[103] = (poison, (), {})
        results = client.run(calls)
        assert type(results[103]) is error
        assert results[:103] + results[104:] == [float(n) for n in range(200) if n != 103]


def test_the_neighbours_in_wire_0_1_too(poisoned: Engine) -> None:
    frames = [b'{"task":"task_count","args":[%d,%d],"pack":%d}' % (n, n, n) for n in range(40)]
    frames[13] = b'{"task":"crash","pack":13}'
    with SeedClient(poisoned.address) as client:
        meta, *data = client.ask(b"{}", *frames)
        entries = [entry for frame in data for entry in frame["data"]]
        assert [frame["size"] for frame in data] == [len(frame["data"]) for frame in data]
        assert meta["size"] == len(data)
        assert entries[13].startswith("job-13: ERROR: worker TASK-")
        assert entries[:13] + entries[14:] == [f"job-{n}: {float(n)}" for n in range(40) if n != 13]


def test_columns_too(poisoned: Engine) -> None:
    """The task that raises is not the one that ends the worker."""
    with Client(poisoned.address, timeout=deadline(20)) as client:
        results = client.options(errors="return").map("hang", numpy.array([0.0, 0.0, 60.0, 0.0]))
        assert [type(result) for result in results] == [float, float, TaskTimeout, float]
        assert results[2].seconds == 0.3
        assert "hang took longer than its timeout of 0.3 s" in str(results[2])


def test_a_task_within_its_timeout_is_left_alone(poisoned: Engine) -> None:
    wait_until(lambda: len(poisoned.pids("task")) == 2, 20, "another worker")
    before = poisoned.pids("task")
    with Client(poisoned.address, timeout=deadline(20)) as client:
        assert client.map("hang", [0.0] * 20) == [0.0] * 20
        # longer than a timeout in all, but no task is
        assert client.map("task_sleep", [0.05] * 30) == [0.05] * 30
    assert poisoned.pids("task") == before


def test_what_is_urgent_does_not_wait_for_the_chunk_at_hand(tmp_path: Path) -> None:
    module = tmp_path / "arm.py"
    module.write_text(
        "import time\nfrom taskengine import task\n\nseen = []\n\n"
        "@task(lane='arm')\ndef move(n):\n    seen.append(n)\n    time.sleep(0.02)\n    return n\n\n"
        "@task(lane='arm')\ndef stop():\n    seen.append('stop')\n    return list(seen)\n"
    )
    tasks = 200
    with (
        Engine(tasks=module, chunking_size=tasks) as engine,
        Client(engine.address, timeout=deadline(20)) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        urgent = client.options(priority="urgent")
        moves = pool.submit(client.map, "move", range(tasks))
        wait_until(lambda: len(urgent.call("stop")) > 1, 20, "the first move")
        *before, _ = urgent.call("stop")
        moved = [n for n in before if n != "stop"]
        assert moved == list(range(len(moved)))
        assert len(moved) < tasks
        assert moves.result() == list(range(tasks))
        assert [n for n in urgent.call("stop") if n != "stop"] == list(range(tasks)), "each ran once, in order"


def test_a_module_that_ends_every_worker_is_slowed_down_and_starves_nobody(tmp_path: Path) -> None:
    flag, module = tmp_path / "flag", tmp_path / "moody.py"
    module.write_text(
        "import os, zmq\nfrom taskengine import task\n\n"
        # not in its import, for which the module would be left out
        f"if os.path.exists({str(flag)!r}):\n    zmq.Context = lambda: os._exit(5)\n\n"
        "@task(lane='arm')\ndef who():\n    return os.getpid()\n"
    )
    with (
        Engine(tasks=f"{module},taskengine.tasks") as engine,
        Client(engine.address, timeout=deadline(20)) as client,
    ):
        flag.touch()
        os.kill(client.call("who"), signal.SIGKILL)
        wait_until(lambda: engine.output().count("(exit code 5)") >= 4, 20, "the crash loop")
        assert client.map("task_count", range(100), range(100)) == list(range(100))
        count, since = engine.output().count("(exit code 5)"), time.monotonic()
        wait_until(lambda: time.monotonic() - since >= 1.0, 20, "a second of it")
        assert engine.output().count("(exit code 5)") - count < 10, "it is not slowed down"
        flag.unlink()
        assert client.call("who") > 0
