"""No output is driven the wrong way at a beginning, at an end or at a hand-over. Read back from the chip.

Between two owners a line is nobody's: its resistor decides, which is the one that such a device has on a real board,
to where it is safe.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from taskengine import Client, TaskEngineError
from taskengine_hardware import read
from taskengine_hardware.backends import lgpio
from taskengine_hardware.device_set import DeviceSet
from tests.engine import deadline, wait_until
from tests.gpio import chip
from tests.gpio.machine import BRAKE, LAMP, RELAY, machine

WATCH_S = 0.00001
"""How soon the thread that watches gets the interpreter."""
LINES = 5, 6, 12
DEVICES = {
    "PWMLED": {"pin": 5},
    "RGBLED": {"red": 5, "green": 6, "blue": 12},
    "DigitalOutput": {"pin": 5},
}
TABLE = f"""
[hardware]
board = "{chip.BOARD}"

[hardware.devices.brake]
type = "DigitalOutput"
pin = {BRAKE}
safe = true

[hardware.devices.heater]
type = "PWMLED"
pin = {RELAY}
active_high = false

[hardware.devices.lamp]
type = "LED"
pin = {LAMP}
"""


@contextmanager
def watched(*lines: int) -> Iterator[chip.Meter]:
    """A meter on lines, which are pulled up, in a thread."""
    for line in lines:
        chip.pull(line, up=True)
    is_over = threading.Event()
    before = sys.getswitchinterval()
    sys.setswitchinterval(WATCH_S)

    def watch() -> None:
        while not is_over.is_set():
            meter.watch(0.001)

    with chip.Meter(*lines) as meter:
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield meter
        finally:
            is_over.set()
            thread.join()
            sys.setswitchinterval(before)
            for line in lines:
                chip.pull(line, up=False)


def levels(meter: chip.Meter, line: int) -> list[int]:
    """The levels that a line had, one after the other."""
    return [level for _, level in meter.edges[line]]


@pytest.mark.parametrize("name", [*DEVICES])
def test_what_is_off_while_high_is_never_low_when_it_is_opened_and_closed(name: str) -> None:
    layout = read({"devices": {"x": {"type": name, "active_high": False, **DEVICES[name]}}, "board": chip.BOARD})
    lines = LINES[: len(DEVICES[name])]
    with watched(*lines) as meter:
        for _ in range(3):
            DeviceSet(layout.devices.values(), lgpio(layout)).close()
    assert {line: levels(meter, line) for line in lines} == {line: [1] for line in lines}


def test_the_last_pulse_ends_where_the_output_is_off() -> None:
    """lgpio ends a cycle that has begun, which would light the lamp up once more after it was told to be off."""
    layout = read({"devices": {"x": {"type": "PWMLED", "pin": 5, "active_high": False}}, "board": chip.BOARD})
    rig = DeviceSet(layout.devices.values(), lgpio(layout))
    for _ in range(20):
        rig.writers[0](0.5)
        # a cycle begins high, thus with the lamp off
        wait_until(lambda: not chip.level(5), 5, "the end of a cycle")
        wait_until(lambda: chip.level(5), 5, "the beginning of the next one")
        rig.writers[0](0.0)
        with chip.Meter(5) as meter:
            meter.watch(0.03)
        assert levels(meter, 5) == [1]
    rig.close()


@pytest.mark.parametrize("end", ["reload", "killed"])
def test_what_is_safe_while_high_is_never_low_at_a_hand_over(end: str) -> None:
    """A brake's enable, and a heater that is off while its line is high; both told nothing."""
    with watched(BRAKE, RELAY) as meter, machine(TABLE) as engine:
        wait_until(lambda: len(engine.pids("pin")) == 1, 20, "the owner")
        (owner,) = engine.pids("pin")
        os.kill(*{"reload": (engine.process.pid, signal.SIGHUP), "killed": (owner, signal.SIGKILL)}[end])
        with Client(engine.address, timeout=deadline(10)) as client:
            wait_until(lambda: engine.pids("pin") not in ([], [owner]) and _answers(client), 20, "another owner")
            assert client.call("devices.state")["brake"]["value"] is True
    assert {line: levels(meter, line) for line in (BRAKE, RELAY)} == {BRAKE: [1], RELAY: [1]}


def _answers(client: Client) -> Any:
    try:
        return client.call("devices.state")
    except TaskEngineError:
        return None
