"""An enabling switch, a stop by a ramp, a line that beats, and a blink, read back from the chip."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from taskengine import Client, NotAllowed
from tests.engine import Engine, deadline, wait_until
from tests.gpio import chip
from tests.gpio.machine import machine

DEADMAN, WHEEL, TRACK, AWAKE, LAMP = 27, 20, 22, 26, 17
SWITCH_S = 0.02
EMULATED_S = 0.1
"""The time that the emulation adds: one processor for all, test included."""
DEVICES = f"""
[hardware]
board = "{chip.BOARD}"

[hardware.devices.deadman]
type = "Button"
pin = {DEADMAN}

[hardware.devices.wheel]
type = "Motor"
forward = {WHEEL}
backward = 21
lease = 60
enable = "deadman"

[hardware.devices.track]
type = "Motor"
forward = {TRACK}
backward = 23
lease = 60
stop = {{ ramp = 0.5 }}

[hardware.devices.awake]
type = "DigitalOutput"
pin = {AWAKE}
beat = 0.02

[hardware.devices.lamp]
type = "LED"
pin = {LAMP}
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    chip.pull(DEADMAN, up=True)
    with machine(DEVICES) as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(10)) as client:
        client.call("devices.state")
        yield client


def edges(number: int, seconds: float) -> list[tuple[float, int]]:
    """The edges of a line within so many seconds."""
    with chip.Meter(number) as meter:
        meter.watch(seconds)
        return meter.edges[number][1:]


def test_a_line_beats_while_it_is_on_and_stands_still_where_its_owner_does(engine: Engine, client: Client) -> None:
    client.call("gpio.write", "awake", True)
    found = edges(AWAKE, 1.0)
    print(f"beat: {len(found)} edges in a second")
    assert 20 <= len(found) <= 52
    (owner,) = engine.pids("pin")
    os.kill(owner, signal.SIGSTOP)
    time.sleep(0.05)
    assert edges(AWAKE, 0.15) == []
    os.kill(owner, signal.SIGCONT)
    wait_until(lambda: len(edges(AWAKE, 0.2)) > 2, 10, "the beat")
    client.call("gpio.write", "awake", False)
    assert chip.level(AWAKE) == 0
    assert edges(AWAKE, 0.2) == []


def test_a_lamp_blinks_without_a_client(client: Client) -> None:
    client.call("led.blink", "lamp", 0.1, 0.1, n=5)
    found = [level for _, level in edges(LAMP, 1.5)]
    assert found.count(0) == 5
    assert chip.level(LAMP) == 0


def test_a_stop_by_a_ramp_is_answered_at_its_end(client: Client) -> None:
    client.call("motor.forward", "track")
    with chip.Meter(TRACK) as meter:
        start = time.monotonic()
        stopping = client.submit("system.stop")
        meter.watch(1.2, 0.0005)
        stopping.result(timeout=deadline(5))
        assert len(meter.pulses(TRACK)) > 3  # between full speed and rest there are pulses
        end, level = meter.edges[TRACK][-1]
    assert level == 0
    seconds = end - start
    print(f"ramp: at rest after {seconds * 1000:.0f} ms")
    assert 0.3 < seconds < 0.5 + EMULATED_S
    client.arm()


def test_what_an_enabling_switch_enables_stops_although_the_router_hangs(engine: Engine, client: Client) -> None:
    with pytest.raises(NotAllowed, match="deadman is released"):
        client.call("motor.forward", "wheel")
    chip.pull(DEADMAN, up=False)
    wait_until(lambda: "rules" not in client.call("devices.state", "wheel")["wheel"], 10, "the pressed switch")
    client.call("motor.forward", "wheel")
    assert chip.level(WHEEL) == 1
    (router,) = engine.pids("router")
    os.kill(router, signal.SIGSTOP)
    try:
        start = time.monotonic()
        chip.pull(DEADMAN, up=True)
        seconds = chip.when_low(WHEEL) - start
    finally:
        os.kill(router, signal.SIGCONT)
    print(f"enabling switch released: at rest after {seconds * 1000:.0f} ms")
    assert seconds < SWITCH_S + EMULATED_S
