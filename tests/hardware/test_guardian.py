"""The guardian beside pins that stay driven when their owner dies, as pigpiod's do, and those of a Pi's own kernels."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client, TaskEngineError
from tests.engine import Engine, deadline, wait_until
from tests.hardware.pigpiod import Daemon

DEVICES = """
[hardware.devices.pan]
type = "Servo"
pin = 18
lease = 3600

[hardware.devices.wheel]
type = "Motor"
forward = 20
backward = 21
lease = 3600

[hardware.devices.brake]
type = "LED"
pin = 16
safe = true
"""


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.close()


@pytest.fixture
def engine(daemon: Daemon, tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "taskengine.toml").write_text(DEVICES)
    environ = {"PIGPIO_ADDR": "127.0.0.1", "PIGPIO_PORT": str(daemon.port)}
    with Engine(cwd=tmp_path, env=environ, pins="pigpio", enable_stdout="false") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine, daemon: Daemon) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        client.call("devices.write", {"pan": 0.5, "wheel": 1.0, "brake": False})
        assert not is_safe(daemon)
        yield client


def is_safe(daemon: Daemon) -> bool:
    """No pulses, and the wheel stands."""
    return not daemon.level(18) and not daemon.level(20)


def test_what_the_daemon_would_go_on_driving_is_made_safe(client: Client, engine: Engine, daemon: Daemon) -> None:
    (owner,) = engine.pids("pin")
    os.kill(owner, signal.SIGKILL)
    wait_until(lambda: is_safe(daemon) and daemon.level(16) == 1, 5, "the guardian")
    wait_until(lambda: _drives(client), 10, "another owner")
    assert daemon.level(20) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_service_that_ends_leaves_nothing_driven(
    client: Client, engine: Engine, daemon: Daemon, number: signal.Signals
) -> None:
    os.kill(engine.process.pid, number)
    wait_until(lambda: is_safe(daemon), 5, "the guardian")
    wait_until(lambda: daemon.clients == 0, 5, "the end of all who had pins")
    assert is_safe(daemon)


def test_an_owner_that_is_stopped_is_ended(engine: Engine, daemon: Daemon, client: Client, tmp_path: Path) -> None:
    (owner,) = engine.pids("pin")
    os.kill(owner, signal.SIGSTOP)
    # its leases are long: it is the router that ends it, and the guardian that makes its pins safe
    wait_until(lambda: is_safe(daemon), 15, "the end of a worker that stands still")


def _drives(client: Client) -> bool:
    try:
        client.call("devices.write", {"pan": 0.5, "wheel": 1.0, "brake": False})
    except TaskEngineError:
        return False
    return True
