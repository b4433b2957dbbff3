"""However it ends: the servo gets no pulses, the wheel stands, the brake is on. Read back from the chip."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from taskengine import Client, NotAllowed, TaskEngineError
from tests.engine import Engine, alive, wait_until
from tests.gpio import chip
from tests.gpio.machine import BRAKE, MOTOR, SERVO, drive, driven, machine

LEASE_S = 0.5
GRACE_S = 0.05
OWNER_S = 0.25
EMULATED_S = 0.1
"""The time that the emulation adds: one processor for all, test included."""

CLIENT = """
import sys, time
from taskengine import Client
from tests.gpio.machine import drive
with Client(sys.argv[1], timeout=20) as client:
    while True:
        drive(client)
        print("driven", flush=True)
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One that goes on, for the tests that end only a part of it."""
    with machine() as engine:
        yield engine


def safe_after(deed: Callable[[], object]) -> float:
    """How many seconds after the deed the wheel and the servo are still, and the brake is on."""
    wait_until(lambda: chip.level(MOTOR) and not chip.level(BRAKE), 1, "the wheel")
    start = time.monotonic()
    deed()
    return chip.when_low(MOTOR, SERVO, high=(BRAKE,)) - start


def kill(pid: int, number: int = signal.SIGKILL) -> Callable[[], None]:
    return lambda: os.kill(pid, number)


def test_a_client_that_is_killed(engine: Engine) -> None:
    command = [sys.executable, "-c", CLIENT, engine.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(8):  # longer than a lease
            assert process.stdout.readline() == "driven\n"
        seconds = safe_after(process.kill)
    print(f"client killed: safe after {seconds * 1000:.0f} ms")
    assert seconds < LEASE_S + GRACE_S + EMULATED_S


def test_a_router_that_is_killed(engine: Engine) -> None:
    with driven(engine) as client:
        drive(client)
        (router,) = engine.pids("router")
        seconds = safe_after(kill(router))
        print(f"router killed: safe after {seconds * 1000:.0f} ms")
        assert seconds < LEASE_S + GRACE_S + EMULATED_S
        wait_until(lambda: _drives(client), 20, "another router")


def test_an_owner_that_is_killed(engine: Engine) -> None:
    with driven(engine) as client:
        (owner,) = engine.pids("pin")
        seconds = safe_after(kill(owner))
        print(f"owner killed: safe after {seconds * 1000:.0f} ms")
        assert seconds < OWNER_S
        # what waited in the lane is lost, and whatever comes is refused
        wait_until(lambda: "the owner of lane hardware died" in _refusal(client), 20, "the protective stop")
        wait_until(lambda: _arms_and_drives(client) and chip.level(MOTOR), 20, "another owner")
        assert chip.level(BRAKE) == 0
        assert "is safe, its owner is dead" in engine.output()


def test_an_owner_that_is_stopped(engine: Engine) -> None:
    with driven(engine) as client:
        (owner,) = engine.pids("pin")
        drive(client)
        seconds = safe_after(kill(owner, signal.SIGSTOP))
        print(f"owner stopped: safe after {seconds * 1000:.0f} ms")
        assert seconds < LEASE_S + GRACE_S + EMULATED_S
        assert not alive(owner)
        assert "did not act on a lease or a stop" in engine.output()
        wait_until(lambda: _arms_and_drives(client), 20, "another owner")


def test_stopping_and_arming(engine: Engine) -> None:
    with driven(engine) as client:
        seconds = safe_after(lambda: client.call("system.stop"))
        print(f"system.stop: safe and answered after {seconds * 1000:.0f} ms")
        with pytest.raises(NotAllowed):
            drive(client)
        assert chip.level(MOTOR) == 0
        client.arm()
        drive(client)
        wait_until(lambda: chip.level(MOTOR), 1, "the wheel")


def _arms_and_drives(client: Client) -> bool:
    """After a fault of what drives, nothing moves until somebody says so."""
    try:
        client.arm()
    except TaskEngineError:
        return False
    return _drives(client)


def _refusal(client: Client) -> str:
    try:
        drive(client)
    except TaskEngineError as error:
        return str(error)
    return ""


def _drives(client: Client) -> bool:
    try:
        drive(client)
    except TaskEngineError:
        return False
    return True
