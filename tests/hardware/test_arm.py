"""examples/arm on mock pins: a real engine, and its client as a program of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskengine import BadArguments, Client, NotAllowed
from tests.engine import Engine, deadline, wait_until

ARM = Path(__file__).resolve().parents[2] / "examples" / "arm"
POSES = {
    "arm.pose left": [-60, 30, 60, None],
    "arm.pose right": [60, 30, 60, None],
    "arm.pose ready": [0, 0, 90, None],
    "arm.wave 2": [0, 0, 90, 0.5],
    "arm.pose rest": [0, -50, 150, 0.5],
}
SAFE = {"base": None, "shoulder": None, "elbow": None, "gripper": -1, "status": False}
# mock pins have nobody who could press a button
FINGER = """
import gpiozero
from taskengine import task

@task(name="button.hold", lane="hardware")
def hold(down):
    pin = gpiozero.Device.pin_factory.pin(27)
    pin.drive_low() if down else pin.drive_high()
"""

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    finger = tmp_path_factory.mktemp("finger") / "finger.py"
    finger.write_text(FINGER)
    with Engine(cwd=ARM, pins="mock", tasks=f"arm.py,{finger}") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(5.0)) as client:
        yield client


def drive(engine: Engine, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ARM / "drive.py"), engine.address, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def values(client: Client) -> dict[str, Any]:
    """Return the last value of every output."""
    return {name: state["value"] for name, state in client.call("devices.state", *SAFE).items()}


def await_safety(client: Client) -> None:
    wait_until(lambda: values(client) == SAFE, 5.0, "the safe state")


def test_one_round(engine: Engine, client: Client) -> None:
    driver = drive(engine, "--rounds", "1")
    wait_until(lambda: values(client)["base"] == -60, 20.0, "the first pose")
    assert values(client)["status"] is True
    with pytest.raises(NotAllowed, match="another client holds base exclusively"):
        client.call("servo.set", "base", angle=0)
    printed, complaints = driver.communicate(timeout=deadline(60.0))
    assert (driver.returncode, complaints) == (0, "")
    reached = re.findall(r"^(arm\..*): base (.*), shoulder (.*), elbow (.*), gripper (.*)$", printed, re.MULTILINE)
    assert {
        move: pytest.approx([None if value == "None" else float(value) for value in where]) for move, *where in reached
    } == POSES
    assert "  hardware.status = True\n" in printed
    await_safety(client)


def test_ctrl_c_ends_it(engine: Engine, client: Client) -> None:
    driver = drive(engine)
    wait_until(lambda: values(client)["status"], 20.0, "the first move")
    driver.send_signal(signal.SIGINT)
    printed, complaints = driver.communicate(timeout=deadline(10.0))
    assert (driver.returncode, complaints) == (0, "")
    assert printed.endswith("let go: the arm is safe within half a second\n")
    await_safety(client)


def test_a_driver_that_is_killed_moves_nothing_any_more(engine: Engine, client: Client) -> None:
    driver = drive(engine)
    wait_until(lambda: values(client)["status"], 20.0, "the first move")
    driver.kill()
    driver.communicate(timeout=deadline(10.0))
    await_safety(client)


def test_the_button_stops_it_until_it_is_armed(engine: Engine, client: Client) -> None:
    driver = drive(engine)
    wait_until(lambda: values(client)["status"], 20.0, "the first move")
    client.call("button.hold", True)
    _, complaints = driver.communicate(timeout=deadline(10.0))
    assert driver.returncode == 1
    assert "stop" in complaints
    assert values(client) == SAFE
    client.call("button.hold", False)
    with pytest.raises(NotAllowed, match=r"system\.arm lets it move again"):
        client.call("arm.pose", "ready")
    client.call("system.arm")
    assert client.call("arm.pose", "ready") >= 0
    await_safety(client)


def test_what_the_arm_cannot_do(engine: Engine, client: Client) -> None:
    for task, argument, text in (("arm.pose", "up", "a pose is one of rest"), ("arm.wave", 1, "nobody knows")):
        with pytest.raises(BadArguments, match=text):
            client.call(task, argument)
    assert values(client) == SAFE
