"""Task modules that claim a device when they are imported, or end the process: one engine, used and reloaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client, TaskFailed
from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.system

CLAIM = """
import fcntl, os
from taskengine import task
file = open(__file__ + ".device", "w")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    raise OSError("the device is busy") from None
"""
ARM = CLAIM + (
    "import helper\n"
    "@task(lane='arm')\ndef grip(): return helper.VALUE\n"
    "@task(lane='arm')\ndef pid(): return os.getpid()\n"
)
SENSOR = CLAIM + "@task\ndef measure(): return os.getpid()\n"
CRASH = "import os\nfrom taskengine import task\nos.abort()\n@task\ndef boom(): ...\n"
PLAIN = "import os, time\n\ndef task_pid(seconds=0.0):\n    time.sleep(seconds)\n    return os.getpid()\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("robot")
    texts = {"arm": ARM, "sensor": SENSOR, "crash": CRASH, "plain": PLAIN, "helper": "VALUE = 1\n"}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "robot.toml").write_text('tasks = ["arm.py", "sensor.py", "crash.py", "plain.py"]\n')
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(config=folder / "robot.toml") as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(30)) as client:
        yield client


def test_each_task_runs_where_its_module_is(engine: Engine, client: Client) -> None:
    assert client.call("grip") == 1
    (holder,) = {client.call("measure") for _ in range(100)}
    assert holder in engine.pids("task")
    assert set(client.map("task_pid", [0.005] * 100)) == set(engine.pids("task")) - {client.call("pid")}


def test_a_module_that_ends_workers_is_left_out_and_calls_say_so(engine: Engine, client: Client) -> None:
    with pytest.raises(TaskFailed, match=r"crash.py failed to load: it ended the process that loaded it \(SIGABRT\)"):
        client.call("boom")
    assert "Left out: task module" in engine.output()
    assert "(SIGABRT): task worker 1" in engine.output()


def test_a_reload_has_the_old_worker_end_before_the_new_one_claims(folder: Path, client: Client) -> None:
    crash = folder / "crash.py"
    crash.write_text("def task_good(): return 5\n")
    (folder / "arm.py").write_text(ARM.replace("helper.VALUE", "helper.VALUE + 10"))
    client.reload()
    assert (client.call("grip"), client.call("task_good")) == (11, 5)
    assert len({client.call("measure") for _ in range(20)}) == 1


def test_two_edits_of_a_size_within_a_second_are_two_edits(folder: Path, client: Client) -> None:
    for value in (2, 3, 4):
        (folder / "helper.py").write_text(f"VALUE = {value}\n")
        subprocess.run([sys.executable, "-c", "import helper"], cwd=folder, check=True)  # which compiles it, too
        client.reload()
        assert client.call("grip") == value + 10


def test_what_does_not_load_in_the_worker_has_all_go_back(folder: Path, engine: Engine, client: Client) -> None:
    good = (folder / "arm.py").read_text()
    (folder / "helper.py").write_text("VALUE = 99\n")
    (folder / "plain.py").write_text(PLAIN.replace("os.getpid()", "'new'"))
    for bad, why in (("raise OSError('no arm')", "OSError: no arm"), ("os.kill(os.getpid(), 4)", "SIGILL")):
        (folder / "arm.py").write_text(good.replace("import helper", f"import helper\n{bad}"))
        with pytest.raises(TaskFailed, match=why) as caught:
            client.reload()
        assert caught.value.type == "TaskModuleError"
        assert client.call("grip") == 14
        assert "new" not in client.map("task_pid", [0.0] * 20)
    assert {task.name for task in client.tasks()} == {"grip", "pid", "measure", "task_good", "task_pid"}
    (folder / "arm.py").write_text(good)
    client.reload()
    assert client.call("grip") == 109
    assert set(client.map("task_pid", [0.0] * 20)) == {"new"}


def test_a_worker_that_dies_comes_back_with_the_code_of_the_others(
    folder: Path, engine: Engine, client: Client
) -> None:
    (folder / "helper.py").write_text("this is being edited")
    arm = client.call("pid")
    os.kill(arm, signal.SIGKILL)
    wait_until(lambda: client.call("pid") != arm, 20, "another worker")
    assert client.call("grip") == 109
