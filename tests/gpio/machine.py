"""A real engine with devices on the simulated chip."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskengine import Client
from tests.engine import Engine, deadline
from tests.gpio.chip import BOARD

SERVO, MOTOR, BRAKE, LAMP, BUTTON, RELAY, TILT = 18, 20, 16, 17, 27, 22, 12
DEVICES = f"""
[hardware]
board = "{BOARD}"

[hardware.devices.pan]
type = "AngularServo"
pin = {SERVO}

[hardware.devices.tilt]
type = "AngularServo"
pin = {TILT}
# to be measured at leisure
lease = 60

[hardware.devices.wheel]
type = "Motor"
forward = {MOTOR}
backward = 21

[hardware.devices.brake]
type = "LED"
pin = {BRAKE}
safe = true
lease = true

[hardware.devices.lamp]
type = "LED"
pin = {LAMP}

[hardware.devices.relay]
type = "DigitalOutput"
pin = {RELAY}
active_high = false

[hardware.devices.button]
type = "Button"
pin = {BUTTON}
"""


@contextmanager
def machine(configuration: str = DEVICES, **settings: Any) -> Iterator[Engine]:
    """An engine in a folder with a configuration."""
    with tempfile.TemporaryDirectory() as name:
        Path(name, "taskengine.toml").write_text(configuration)
        with Engine(cwd=Path(name), enable_stdout="false", **settings) as engine:
            yield engine


@contextmanager
def driven(engine: Engine) -> Iterator[Client]:
    """A client; servo, wheel and brake have their leases, and are driven, when it is there."""
    with Client(engine.address, timeout=deadline(10)) as client:
        # a command that waits for the connection is too old by then
        client.call("devices.state")
        drive(client)
        yield client


def drive(client: Client) -> None:
    """Turn the servo, run the wheel, lift the brake."""
    client.call("devices.write", {"pan": 45, "wheel": 1.0, "brake": False})
