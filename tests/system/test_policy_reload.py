"""A policy that changes while the engine runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskengine import Client, NotAllowed, TaskFailed
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.system
ROBOT = """
from taskengine import check_device, task

@task
def turn(device):
    check_device(device)
    return device
"""
POLICY = """
[policy.laptop]
tasks = ["{tasks}"]
devices = ["{devices}"]
subscribe = ["{topics}*"]
calls = ["reload"]
"""


def write(folder: Path, *, tasks: str, devices: str, topics: str) -> None:
    (folder / "taskengine.toml").write_text(POLICY.format(tasks=tasks, devices=devices, topics=topics))


def test_it_holds_without_a_restart_in_the_router_in_workers_and_for_publications(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text(ROBOT)
    write(tmp_path, tasks="turn", devices="pan", topics="none.")
    with Engine(cwd=tmp_path, tasks=f"{tmp_path / 'robot.py'},taskengine.tasks", keys=tmp_path / "keys") as engine:
        KeyRing(tmp_path / "mine").accept(KeyRing(tmp_path / "keys").pair("laptop", engine.address))
        routers = engine.pids("router")
        with Client(engine.address, keys=tmp_path / "mine", timeout=deadline(20)) as client:
            assert client.call("turn", "pan") == "pan"
            for call in (("turn", "tilt"), ("task_count", 2, 3)):
                with pytest.raises(NotAllowed):
                    client.call(*call)
            write(tmp_path, tasks="t*", devices="tilt", topics="cpu.")
            client.reload()
            assert client.call("turn", "tilt") == "tilt"
            assert client.call("task_count", 2, 3) == 2.5
            with pytest.raises(NotAllowed):
                client.call("turn", "pan")
            with client.subscribe("cpu.load") as feed:
                assert feed.get(deadline(20)).topic == "cpu.load"
            (tmp_path / "taskengine.toml").write_text("[policy.laptop]\ntask = []\n")
            with pytest.raises(TaskFailed, match="task"):
                client.reload()
            (tmp_path / "taskengine.toml").write_text("")
            with pytest.raises(TaskFailed, match="takes a restart"):
                client.reload()
            assert client.call("turn", "tilt") == "tilt", "what was before goes on"
            write(tmp_path, tasks="none", devices="tilt", topics="cpu.")
            client.reload()
            with pytest.raises(NotAllowed):
                client.call("turn", "tilt")
        assert engine.pids("router") == routers
        wait_until(lambda: "Reloaded the task modules" in engine.output(), 20, "the line")
