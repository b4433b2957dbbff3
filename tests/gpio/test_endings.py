"""However the service ends, the servo gets no pulses and the wheel stands. Read back from the chip."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.engine import alive, deadline, wait_until
from tests.gpio import chip
from tests.gpio.machine import MOTOR, SERVO, drive, driven, machine
from tests.gpio.test_safety import EMULATED_S, kill

SERVICE_S = 1.0


def test_a_supervisor_that_is_killed() -> None:
    with machine() as engine, driven(engine) as client:
        drive(client)
        pids = engine.pids()
        start = time.monotonic()
        seconds = safe_when_gone(kill(engine.process.pid))
        wait_until(lambda: not any(map(alive, pids)), 5, "the end of all processes")
        gone = time.monotonic() - start
        print(f"supervisor killed: safe after {seconds * 1000:.0f} ms, gone after {gone * 1000:.0f} ms")
        assert seconds < SERVICE_S
        assert gone < SERVICE_S + EMULATED_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_ended(number: int) -> None:
    with machine() as engine, driven(engine) as client:
        drive(client)
        seconds = safe_when_gone(kill(engine.process.pid, number))
        print(f"service ended: safe after {seconds * 1000:.0f} ms")
        assert seconds < SERVICE_S
        assert engine.process.wait(deadline(20)) == 0


def safe_when_gone(deed: Callable[[], object]) -> float:
    """How many seconds after the deed the wheel and the servo are still, where nobody is left to hold the brake."""
    start = time.monotonic()
    deed()
    return chip.when_low(MOTOR, SERVO) - start
