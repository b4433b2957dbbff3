"""Owners on a machine that is busy, or that stood still, are late and live on: a real engine on mock pins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client
from tests.engine import Engine, deadline, wait_until

DEVICES = """
[hardware.devices.pan]
type = "Servo"
pin = 18
lease = "strict"

[hardware.devices.wheel]
type = "Motor"
forward = 20
backward = 21
lease = "strict"

[hardware.devices.heater]
type = "PWMLED"
pin = 12
"""
LOOPS = 16
"""Processes that do nothing, as fast as they can."""
LOAD_S = 6.0
STAND_STILL = """
import os, signal, sys, time
from taskengine_hardware.priority import hurry

hurry()  # or some of them may stand still for longer than others
for what in signal.SIGSTOP, signal.SIGCONT:
    for pid in map(int, sys.argv[1:]):
        os.kill(pid, what)
    time.sleep(1.0)
"""
CALL = """
from taskengine import task
from taskengine_hardware import robot

@task(name="rest.then.hold", lane="hardware")
def hold(seconds):
    import ctypes
    robot().motor_forward("wheel", 0.0)
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # with the interpreter, as C that computes has it
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "taskengine.toml").write_text(DEVICES)
    (tmp_path / "own.py").write_text(CALL)
    with Engine(cwd=tmp_path, pins="mock", tasks="own.py", enable_stdout="false") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        client.call("devices.state")
        yield client


@pytest.mark.alone
def test_no_healthy_owner_is_ended_on_a_busy_machine(engine: Engine, client: Client) -> None:
    owners = engine.pids("pin")
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(LOOPS)]
    try:
        end = time.monotonic() + LOAD_S
        while time.monotonic() < end:
            client.call("servo.set", "pan", 0.5)
            wait_until(lambda: client.call("devices.state", "pan")["pan"]["value"] is None, 20, "the end of its lease")
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert engine.pids("pin") == owners, engine.output()


@pytest.mark.parametrize("number", range(4))
def test_an_engine_that_stood_still_as_a_whole_loses_no_owner(engine: Engine, client: Client, number: int) -> None:
    owners, everybody = engine.pids("pin"), [engine.process.pid, *engine.pids()]
    client.call("servo.set", "pan", 0.5)
    pids = map(str, everybody if number % 2 else reversed(everybody))
    subprocess.run([sys.executable, "-c", STAND_STILL, *pids], check=True)
    wait_until(lambda: client.call("devices.state", "pan")["pan"]["value"] is None, 20, "the end of its lease")
    assert engine.pids("pin") == owners, engine.output()


def test_a_lease_that_ends_where_all_is_safe_ends_nobody(engine: Engine, client: Client) -> None:
    owners = engine.pids("pin")
    client.call("rest.then.hold", deadline(0.8))
    assert engine.pids("pin") == owners, engine.output()


def test_an_owner_that_hangs_while_it_drives_is_ended(engine: Engine, client: Client) -> None:
    (owner,) = engine.pids("pin")
    client.call("motor.forward", "wheel")
    os.kill(owner, signal.SIGSTOP)
    wait_until(lambda: owner not in engine.pids("pin"), 5, "the guardian")


def test_an_owner_that_stands_still_with_pulses_that_no_lease_ends_is_ended(engine: Engine, client: Client) -> None:
    (owner,) = engine.pids("pin")
    client.call("pwm.set", "heater", 0.1)
    os.kill(owner, signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: owner not in engine.pids("pin"), 5, "the guardian")
    assert time.monotonic() - began < deadline(1)
