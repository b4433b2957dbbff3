"""examples/first_tasks, used as its README says, with a pseudo-terminal for the port."""

from __future__ import annotations

import os
import shutil
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from taskengine import Client, TaskFailed, TaskTimeout
from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.system
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "first_tasks"


class Robot(NamedTuple):
    folder: Path
    port: int
    engine: Engine
    client: Client


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    folder = tmp_path_factory.mktemp("first") / "tasks"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    env = {"FIRST_TASKS_PORT": os.ttyname(theirs)}
    with Engine(cwd=folder, env=env) as engine, Client(engine.address, timeout=deadline(20)) as client:
        yield Robot(folder, ours, engine, client)
    os.close(ours)
    os.close(theirs)


def test_it_is_served_as_it_stands(robot: Robot) -> None:
    assert [(task.name, task.lane) for task in robot.client.tasks()] == [
        (name, "arm") for name in ("turn", "settle", "plan", "grip")
    ]
    assert "Left out" not in robot.engine.output()


def test_the_port_is_written_by_the_one_worker_that_has_it(robot: Robot) -> None:
    assert [robot.client.call("turn", degrees) for degrees in (90, -45)] == [50, -25]
    told = b""
    while told.count(b"\n") < 2:  # the kernel carries it over in its own time
        told += os.read(robot.port, 100)
    assert told == b"TURN 50\nTURN -25\n"


def test_what_it_prints_and_logs_is_seen(robot: Robot) -> None:
    assert robot.client.call("settle", 0.01) == "still"
    wait_until(lambda: "turning by 50 steps" in robot.engine.output(), 10, "a printed line")
    wait_until(lambda: "waiting for 0.01 s" in robot.engine.output(), 10, "a logged line")


def test_it_computes_in_a_pool(robot: Robot) -> None:
    assert robot.client.call("plan", [90, 180, 360]) == [50, 100, 200]


def test_it_raises_and_works_on(robot: Robot) -> None:
    with pytest.raises(TaskFailed, match="a force of 12 N breaks the egg"):
        robot.client.call("grip", 12)
    assert robot.client.call("grip", 3) is None


def test_it_is_edited_and_reloaded(robot: Robot) -> None:
    motors = robot.folder / "motors.py"
    motors.write_text(motors.read_text().replace("200", "400"))
    robot.client.reload()
    assert robot.client.call("turn", 90) == 100
    motors.write_text(motors.read_text().replace("400", "40x"))
    with pytest.raises(TaskFailed, match=r"main\.py: SyntaxError"):
        robot.client.reload()
    assert robot.client.call("turn", 90) == 100
    motors.write_text(motors.read_text().replace("40x", "800"))
    robot.client.reload()
    assert robot.client.call("turn", 90) == 200


def test_a_task_that_takes_too_long_costs_the_port_nothing(robot: Robot) -> None:
    with pytest.raises(TaskTimeout):
        robot.client.call("settle", 60)
    assert robot.client.call("turn", 360) == 800
