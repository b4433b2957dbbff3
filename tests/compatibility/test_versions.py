"""The newest client with the engine of 0.1.0, and the reverse: each does all that 0.1.0 could."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskengine import BadArguments, Client, NotAllowed, TaskEngineError
from tests.compatibility import exercise, old
from tests.engine import Engine, deadline, free_ports, wait_until

EXERCISE = Path(exercise.__file__)
FOUND = {
    "call": 2.5,
    "map": [2.5, 4.5],
    "run": [2.5, "x"],
    "submit": [1.5, 2.0, 2.5],
    "deadline": 1.0,
    "unknown": "UnknownTask",
    "failed": "TaskFailed",
    "array": [0.0, 1.0, 2.0],
    "listed": ["servo.set", "system.stop", "task_count"],
    "version": 2,
    "values": [[1, [2]], [3], "1.10", "P1D", {"k": []}],
    "cancelled": True,
    "latest": "glad",
    "counts": True,
    "lamp": True,
    "published": False,
    "driven": 0.5,
    "lease": 0.5,
    "lapsed": 0.0,
    "stopped": [0.0, "NotAllowed"],
    "armed": 0.25,
    "ceased": 0.0,
    "aio": [1.5, 2.0, 2.5],
    "aio_driven": -0.5,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "taskengine.toml").write_text(old.DEVICES)
    return tmp_path


@pytest.fixture
def old_engine(folder: Path) -> Iterator[str]:
    with old.engine(folder) as address:
        yield address


@pytest.fixture
def client(old_engine: str) -> Iterator[Client]:
    with Client(old_engine, timeout=deadline(20)) as client:
        yield client


def exercised(python: str, address: str, cwd: Path, *keys: str) -> Any:
    """Return what a client of that Python finds, away from the sources, so that it imports its installed package."""
    program = (cwd / "program.py").absolute()
    program.write_text(EXERCISE.read_text())
    done = subprocess.run([python, str(program), address, *keys], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_engine_that_tells_no_times_gives_samples_without_an_age(client: Client) -> None:
    client.publish("arm.mood", "glad")
    with client.subscribe("arm.*", newest=True) as feed:
        sample = feed.get(deadline(20))
        assert (sample.value, sample.age, feed.dropped) == ("glad", None, 0)
    assert client.stats().sources == []


def test_these_are_two_versions(folder: Path) -> None:
    told = "import taskengine; print(taskengine.__file__)"
    files = {
        subprocess.run([python, "-c", told], cwd=folder, capture_output=True, text=True, check=True).stdout
        for python in (sys.executable, str(old.python()))
    }
    assert len(files) == 2


def test_the_newest_client_with_the_old_engine(old_engine: str, folder: Path) -> None:
    assert exercised(sys.executable, old_engine, folder) == FOUND


def test_the_old_client_with_the_newest_engine(folder: Path) -> None:
    with Engine(cwd=folder, pins="mock", enable_stdout="false") as engine:
        assert exercised(str(old.python()), engine.address, folder) == FOUND


def test_the_old_client_with_the_newest_engine_over_curve(folder: Path) -> None:
    first = free_ports(2)
    keys = folder / "keys"
    old.pair(keys, f"tcp://127.0.0.1:{first}")
    settings: dict[str, Any] = {"curve": "on", "keys": keys, "router_frontend": first, "router_backend": first + 1}
    with Engine(cwd=folder, pins="mock", enable_stdout="false", **settings) as engine:
        assert exercised(str(old.python()), engine.address, folder, str(keys)) == FOUND


def test_the_newest_client_with_the_old_engine_over_curve(folder: Path) -> None:
    with old.engine(folder, curve="on", keys=str(folder / "keys")) as address:
        assert exercised(sys.executable, address, folder, str(folder / "keys")) == FOUND


@pytest.mark.parametrize("value", [1j, 2**64])
def test_what_the_old_engine_cannot_take_is_refused_before_it_is_sent(client: Client, value: complex) -> None:
    before, why = client.stats().accepted, "a taskengine before 0.2, which takes no such values"
    bad, good = client.submit("task_echo", [value]), client.submit("task_echo", 1)
    with pytest.raises(BadArguments, match=f"^call 0: .*{why}"):
        client.call("task_echo", value)
    with pytest.raises(BadArguments, match=f"^call 1: .*{why}"):
        client.map("task_echo", [1, value])
    with pytest.raises(BadArguments, match=why):
        bad.result(deadline(20))
    assert good.result(deadline(20)) == 1
    assert client.stats().accepted == before + 1


@pytest.mark.parametrize("way", ["call", "submit", "send", "stop"])
def test_the_newest_client_stops_the_old_engine_by_each_verb(client: Client, way: str) -> None:
    """It has no way past the router, and has not heard of a stop that is not a task."""
    client.call("gpio.write", "lamp", True)
    if way == "stop":
        client.stop(why="a test", timeout=deadline(5))
    else:
        getattr(client, way)("system.stop")
    wait_until(lambda: exercise.value(client, "lamp") is False, 5, "the lamp")
    with pytest.raises(NotAllowed):
        client.call("gpio.write", "lamp", True)
    assert client.stop_in_force == 0
    client.arm()
    client.call("gpio.write", "lamp", True)


def test_the_newest_command_stops_and_arms_the_old_engine(old_engine: str, client: Client, folder: Path) -> None:
    client.call("gpio.write", "lamp", True)
    run_command(sys.executable, folder, "stop", "--address", old_engine, "--why", "a test")
    assert exercise.value(client, "lamp") is False
    run_command(sys.executable, folder, "call", "--address", old_engine, "system.arm")
    client.call("gpio.write", "lamp", True)


def test_the_old_command_stops_and_arms_the_newest_engine(folder: Path) -> None:
    with (
        Engine(cwd=folder, pins="mock", enable_stdout="false") as engine,
        Client(engine.address, timeout=deadline(20)) as client,
    ):
        client.call("gpio.write", "lamp", True)
        run_command(str(old.python()), folder, "call", "--address", engine.address, "system.stop")
        assert exercise.value(client, "lamp") is False
        run_command(str(old.python()), folder, "call", "--address", engine.address, "system.arm")
        client.lease("wheel")
        client.call("motor.forward", "wheel", 0.5)


def test_the_newest_client_goes_on_over_another_router_of_the_old_engine(client: Client, folder: Path) -> None:
    """It learns anew, and finds nothing that it could learn."""
    client.call("motor.forward", "wheel", 0.5)
    (line,) = [line for line in (folder / "output").read_text().splitlines() if re.search(r"\[\d+\]: router", line)]
    os.kill(int(re.findall(r"\[(\d+)\]", line)[0]), signal.SIGKILL)
    wait_until(lambda: _drives(client), 20, "another router")


def _drives(client: Client) -> bool:
    try:
        client.call("motor.forward", "wheel", 0.5)
    except TaskEngineError:
        return False
    return True


def run_command(python: str, cwd: Path, *arguments: str) -> None:
    """Run `taskengine` of that Python, which is to say that all went well."""
    command = [python, "-m", "taskengine", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=deadline(30))
    assert done.returncode == 0, done.stderr
