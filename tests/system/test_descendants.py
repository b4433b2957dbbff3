"""Processes that tasks start: pools and processes work, and none outlives its worker, whatever ends that."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client, TaskTimeout
from taskengine._descendants import children_of
from tests.engine import Engine, alive, children, deadline, serve_command, serve_on_terminal, wait_until

pytestmark = pytest.mark.system
TASKS = """
import multiprocessing, os, subprocess, time
from concurrent.futures import ProcessPoolExecutor
from taskengine import task

def task_pools():
    with multiprocessing.Pool(2) as pool:
        found = pool.map(abs, [-1, -2])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found += pool.map(abs, [-3])
    with ProcessPoolExecutor(1) as executor:
        found.append(executor.submit(abs, -4).result())
    with multiprocessing.Manager() as manager:
        found.append(manager.list([5])[0])
    process = multiprocessing.Process(target=os._exit, args=(6,))
    process.start()
    process.join()
    return [*found, process.exitcode]

def leave(path):
    # a child, one in a session of its own, one whose parent has ended, and a pool
    script = f"echo $$ >> {path}; exec sleep 60"
    subprocess.Popen(["sh", "-c", script])
    subprocess.Popen(["sh", "-c", script], start_new_session=True)
    os.system(f"sh -c 'trap true INT TERM HUP; {script}' &")
    pool = multiprocessing.Pool(1)
    with open(path, "a") as file:
        print(pool.apply(os.getpid), file=file)
    globals()["kept"] = pool

def task_leave(path):
    leave(path)
    return os.getpid()

@task(timeout=1.0)
def leave_and_hang(path):
    leave(path)
    time.sleep(60)

def task_shell(sign):
    return subprocess.run(["sh", "-c", f"mkdir {sign}; sleep 0.5; echo whole"], capture_output=True).stdout.decode()
"""
LEFT = 4


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "starts.py"
    path.write_text(TASKS.replace("timeout=1.0", f"timeout={deadline(2.0)}"))
    return path


def written(path: Path) -> list[int]:
    """The processes that a task has left."""
    wait_until(lambda: path.exists() and len(path.read_text().split()) == LEFT, 20, "what the task starts")
    return [int(pid) for pid in path.read_text().split()]


def have_ended(pids: list[int]) -> None:
    try:
        wait_until(lambda: not any(map(alive, pids)), 15, f"the end of {pids}")
    except AssertionError as late:
        late.add_note(subprocess.run(["ps", "-fp", ",".join(map(str, pids))], capture_output=True, text=True).stdout)
        raise


def test_pools_work_in_tasks_and_what_they_leave_ends_with_the_worker(module: Path, tmp_path: Path) -> None:
    with Engine(tasks=module) as engine, Client(engine.address, timeout=deadline(20)) as client:
        assert client.call("task_pools") == [1, 2, 3, 4, 5, 6]
        with pytest.raises(TaskTimeout):
            client.call("leave_and_hang", str(tmp_path / "late"))
        have_ended(written(tmp_path / "late"))
        worker = client.call("task_leave", str(tmp_path / "killed"))
        left = written(tmp_path / "killed")
        assert all(map(alive, left))
        os.kill(worker, signal.SIGKILL)
        have_ended(left)
        client.call("task_leave", str(tmp_path / "stopped"))
        left = written(tmp_path / "stopped")
        assert engine.stop() == 0
        assert not any(map(alive, left))
        assert len(engine.output().split("Sucessfully terminated")) == 5


def test_what_tasks_left_ends_with_a_killed_supervisor(module: Path, tmp_path: Path) -> None:
    with Engine(tasks=module) as engine, Client(engine.address, timeout=deadline(20)) as client:
        client.call("task_leave", str(tmp_path / "left"))
        left = [*written(tmp_path / "left"), *engine.pids()]
        engine.process.kill()
        engine.process.wait()
        have_ended(left)


def test_ctrl_c_does_not_reach_what_a_task_has_started(module: Path, tmp_path: Path) -> None:
    process, ours, first = serve_on_terminal("--tasks", str(module))
    results: list[Any] = []
    sign = tmp_path / "begun"
    with Client(f"tcp://127.0.0.1:{first}", timeout=deadline(20)) as client:
        call = threading.Thread(target=lambda: results.append(client.call("task_shell", str(sign))))
        call.start()
        wait_until(sign.exists, 20, "the task")
        pids = children(process.pid)
        os.write(ours, b"\x03")
        call.join()
    assert results == ["whole\n"]
    assert process.wait(deadline(20)) == 0
    os.close(ours)
    wait_until(lambda: not any(map(alive, pids)), 2.0, "the end of its processes")


def test_as_pid_1_it_reaps_orphans_and_kills_none_that_are_not_its_own() -> None:
    """As in a container: what `docker exec` leaves becomes the child of PID 1."""
    command, first = serve_command()
    space = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--pid", "--fork"]
    space += ["--kill-child", "--mount-proc"]
    with subprocess.Popen([*space, *command], stdout=subprocess.DEVNULL) as process:
        try:
            with Client(f"tcp://127.0.0.1:{first}", timeout=deadline(20)) as client:
                assert client.call("task_count", 2, 3) == 2.5
            [(init, _)] = children_of(process.pid)
            enter = ["nsenter", *([] if os.geteuid() == 0 else ["--user"]), "--target", str(init), "--pid", "--mount"]
            subprocess.run([*enter, "sh", "-c", "sleep 60 & sleep 2 &"], check=True)
            # between fork and exec both are named sh
            wait_until(lambda: list(children(init).values()).count("sleep") == 2, 5, "two orphans")
            wait_until(lambda: list(children(init).values()).count("sleep") == 1, 5, "the end of an orphan")
            wait_until(lambda: not any(has_ended for _, has_ended in children_of(init)), 5, "its reaping")
            worker = next(pid for pid, name in children(init).items() if "task" in name)
            os.kill(worker, signal.SIGKILL)
            wait_until(
                lambda: worker not in children(init) and sum("task" in n for n in children(init).values()) == 2,
                20,
                "another worker",
            )
            assert "sleep" in children(init).values()
            os.kill(init, signal.SIGTERM)
            assert process.wait(deadline(20)) == 0
        finally:
            process.kill()
