"""The small programs of examples/ on mock pins: one engine, and each program as its user runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client
from tests.engine import Engine, deadline, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(cwd=EXAMPLES, pins="mock") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(5.0)) as client:
        yield client


def start(engine: Engine, program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / program), engine.address, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(engine: Engine, program: str, *arguments: str) -> str:
    """Return what a program printed, which ended well."""
    process = start(engine, program, *arguments)
    printed, complaints = process.communicate(timeout=deadline(30.0))
    assert (process.returncode, complaints) == (0, "")
    return printed


def state(client: Client, name: str) -> Any:
    """Return the last value of a device."""
    return client.call("devices.state", name)[name]["value"]


def test_every_program_is_on_the_page_and_tested() -> None:
    page = (EXAMPLES / "README.md").read_text()
    programs = {path.name for path in EXAMPLES.glob("*.py")} - {"kinematics.py"}
    assert set(re.findall(r"^\| \[(\w+\.py)\]\(\1\) \|", page, re.MULTILINE)) == programs
    assert all(f'"{program}"' in Path(__file__).read_text() for program in programs)


def test_blink(engine: Engine, client: Client) -> None:
    with client.subscribe("hardware.lamp") as samples:
        client.call("gpio.write", "lamp", False)
        assert samples.get(timeout=deadline(10.0)).value["value"] is False
        assert run(engine, "blink.py", "--times", "2", "--seconds", "0.2") == "on\noff\non\noff\n"
        told = [samples.get(timeout=deadline(10.0)).value["value"] for _ in range(4)]
    assert told == [True, False, True, False]


def test_blink_ends_with_ctrl_c(engine: Engine, client: Client) -> None:
    process = start(engine, "blink.py", "--seconds", "0.1")
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=deadline(10.0))
    assert (process.returncode, complaints) == (0, "")
    wait_until(lambda: state(client, "lamp") is False, 5.0, "the end of the lamp's lease")


def test_servo(engine: Engine, client: Client) -> None:
    printed = run(engine, "servo.py", "--angles", "20", "-10", "--seconds", "0.6")
    assert printed == "at 20 degrees\nat -10 degrees\n"
    wait_until(lambda: state(client, "pan") is None, 5.0, "the end of the servo's lease")


def test_servo_says_what_it_may_not(engine: Engine) -> None:
    process = start(engine, "servo.py", "--angles", "90")
    _, complaints = process.communicate(timeout=deadline(30.0))
    assert process.returncode == 1
    assert complaints.startswith("BadArguments: ")
    assert "60" in complaints


def test_plot(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "load.png"
    assert run(engine, "plot.py", "--samples", "5", "--file", str(file)).startswith("5 samples of ")
    assert file.read_bytes().startswith(b"\x89PNG")


def test_packages(engine: Engine) -> None:
    numbers, error = run(engine, "packages.py", "--tasks", "400").splitlines()
    assert numbers.startswith("400 angles from 24.1 to 85.5 degrees, in ")
    assert error == "53.1 degrees, and TaskFailed: ValueError: the arm cannot reach 9.000 m from its shoulder"


def test_asynchronous(engine: Engine, client: Client) -> None:
    printed = run(engine, "asynchronous.py", "--samples", "3").splitlines()
    assert sorted(line.split()[0] for line in printed) == ["20", "load", "load", "load", "the"]
    assert printed[-1] == "the lamp is off"
    assert state(client, "lamp") is False
