"""Rules in an engine, on mock pins: what a client sees of them, and how the line of a mistake is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client, NotAllowed
from tests.engine import Engine, deadline, wait_until

DEVICES = """
[hardware.devices.base]
type = "Robot"
left = [5, 6]
right = [12, 13]
lease = 60

[hardware.devices.heat]
type = "CPUTemperature"
sensor_file = "{file}"
rate = 2
max_age = 60

[hardware.rules.warm]
when = "heat > 60"
then = {{ limit = 0.25 }}
text = "the motors are warm"

[hardware.rules.hot]
when = "heat > 80"
then = "latch"
text = "the motors are hot"

[hardware.devices.pan]
type = "Servo"
pin = 18
lane = "legs"
"""
WARM, HOT = "warm: the motors are warm", "hot: the motors are hot"

pytestmark = pytest.mark.system


def test_a_motor_that_grows_hot(tmp_path: Path) -> None:
    heat = tmp_path / "heat"
    warm(heat, 40000)
    (tmp_path / "taskengine.toml").write_text(DEVICES.format(file=heat))
    with Engine(cwd=tmp_path, pins="mock") as engine, Client(engine.address, timeout=deadline(10)) as client:
        ready = {"armed": True, "stop": 0, "reasons": []}
        wait_until(lambda: client.call("system.check") == ready, 10, "the first reading")
        with client.subscribe("hardware.system") as feed:
            client.call("robot.drive", "base", 1, 0.5)
            warm(heat, 70000)
            wait_until(lambda: state(client)["value"] == (0.25, 0.125), 5, "the limit")
            assert state(client)["rules"] == [WARM]
            client.call("robot.drive", "base", -1, -1)
            assert state(client)["value"] == (-0.25, -0.25)
            warm(heat, 90000)
            wait_until(lambda: not client.call("system.state")["armed"], 5, "the stop")
            assert state(client)["value"] == (0, 0)
            with pytest.raises(NotAllowed, match="the machine was stopped by a rule: hot: the motors are hot"):
                client.call("legs.servo.set", "pan", 0.5)
            told = next(sample.value for sample in feed if not sample.value["armed"])
            assert (told["by"], told["why"]) == ("a rule", HOT)
            assert told["rules"] == {"warm": WARM, "hot": HOT}
            for lane in ("", "legs."):
                reasons = {"armed": False, "stop": 1, "reasons": [HOT]}
                assert client.call(f"{lane}system.check") == reasons
                with pytest.raises(NotAllowed, match=f"the machine cannot be armed: {HOT}"):
                    client.call(f"{lane}system.arm", 1)
        heat.unlink()
        wait_until(lambda: "has no value" in client.call("system.check")["reasons"][0], 5, "the fault")
        warm(heat, 40000)
        wait_until(lambda: client.call("system.check")["reasons"] == [], 5, "the reading")
        client.arm()
        client.call("robot.drive", "base", 1, 1)
        assert state(client)["value"] == (1, 1)


def warm(thermometer: Path, millidegrees: int) -> None:
    """Replace the reading as the kernel does: nobody finds the file empty."""
    new = thermometer.with_name("next")
    new.write_text(str(millidegrees))
    new.rename(thermometer)


def state(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.call("devices.state", "base")["base"]
    return found


def test_check_names_the_line_of_a_rule(tmp_path: Path) -> None:
    text = DEVICES.format(file="/nowhere").replace("heat > 60", "heat > 60 and heat < 50")
    (tmp_path / "taskengine.toml").write_text(text)
    command = [sys.executable, "-m", "taskengine", "check"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode != 0
    line = text.splitlines().index('when = "heat > 60 and heat < 50"') + 1
    assert f"line {line}" in ran.stderr
    assert "`heat > 60 and heat < 50` can never hold" in ran.stderr
