"""The same client script drives a servo on a pin, on a board and on the kernel's PWM: only the settings change."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskengine import Client
from tests.engine import Engine, deadline, wait_until
from tests.hardware.one_script import ANGLES, STEP_S, drive

SERVO = """
[hardware.devices.pan]
type = "AngularServo"
lease = 60
"""
SETTINGS = {
    "a mock pin": "pin = 18\n",
    "an emulated PCA9685": 'board = "hat"\nchannel = 3\n[hardware.boards.hat]\ntype = "PCA9685"\n',
    "the kernel's PWM": 'pin = "pwm:0"\n',
}
TASKS = '''
from taskengine import task
from taskengine_hardware import robot


@task(name="pan.width", lane="hardware")
def width() -> float:
    """Return the pulse that the servo gets, in s."""
    factory = robot()._open().device_set.factory
    if hasattr(factory, "buses") and factory.buses:
        bus = factory.buses["hat"]
        return bus.share(3) * 4096 * (bus.registers[0xFE] + 1) / 25e6
    return factory.pin(18 if not hasattr(factory, "buses") else "pwm:0").state * 0.02
'''


@pytest.mark.parametrize("what", SETTINGS)
def test_only_the_settings_change(what: str, tmp_path: Path) -> None:
    (tmp_path / "taskengine.toml").write_text(SERVO + SETTINGS[what])
    (tmp_path / "widths.py").write_text(TASKS)
    with (
        Engine(cwd=tmp_path, pins="mock", tasks="widths.py") as engine,
        Client(engine.address, timeout=deadline(10)) as client,
    ):
        client.call("devices.state")
        found = drive(client, lambda: client.call("pan.width"))
        assert found == {angle: pytest.approx(seconds, abs=STEP_S) for angle, seconds in ANGLES.items()}
        wait_until(lambda: client.call("pan.width") == 0.0, 5, "the end of the pulses")
        assert client.call("devices.state")["pan"]["value"] is None
