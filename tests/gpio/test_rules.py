"""Rules act in the owner of the pins, within 20 ms, while a client drives and the router is stopped. Read back."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from taskengine import Client, NotAllowed, TaskEngineError
from tests.engine import Engine, deadline, wait_until
from tests.gpio import chip
from tests.gpio.machine import machine

LEFT, RIGHT, LEFT_BACK, RIGHT_BACK, STOP, BUMPER, ECHO, TRIGGER = 20, 16, 21, 26, 5, 6, 24, 23
LEASE_S = 5.0
"""So long that no lease ends in a test."""
LIMIT_S = 0.02
MOMENT_S = 0.03
TIMES = 5
ATTEMPTS = 3
EMULATED_S = 0.1
"""The time that the emulation adds: one processor for all, test included."""
AGE_S = 0.6
PERIOD_S = 0.01
BASE = f"""
[hardware]
board = "{chip.BOARD}"

[hardware.devices.base]
type = "Robot"
left = [{LEFT}, {LEFT_BACK}]
right = [{RIGHT}, {RIGHT_BACK}]
lease = {LEASE_S}
"""
# the emulation may be suspended for a while
CONTACTS = f"""
[hardware.devices.estop]
type = "Button"
pin = {STOP}
stops = true
max_age = 2

[hardware.devices.bumper]
type = "Button"
pin = {BUMPER}
blocks = {{ base = "forward" }}
max_age = 2
"""
NOSE = f"""
[hardware.devices.nose]
type = "DistanceSensor"
echo = {ECHO}
trigger = {TRIGGER}
max_age = {AGE_S}
rate = 4

[hardware.rules.near]
when = "nose < 0.1"
then = "stop"
"""
ECHOES = """
import time
from tests.gpio import chip
while True:  # 0.7 m at least, whatever the trigger does
    chip.pull({echo}, up=True)
    time.sleep(0.004)
    chip.pull({echo}, up=False)
    print("echo", flush=True)
    time.sleep(0.02)
"""


@contextmanager
def echoes() -> Iterator[subprocess.Popen[str]]:
    """Something is far away."""
    command = [sys.executable, "-c", ECHOES.format(echo=ECHO)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
            chip.pull(ECHO, up=False)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One with a stop input and a bumper, both closed."""
    with machine(BASE + CONTACTS) as engine, Client(engine.address, timeout=deadline(20)) as client:
        # the owner has pulled them up: open, as after a cut of the wire
        wait_until(lambda: not client.call("system.state")["armed"], 20, "the stop")
        assert client.call("system.state")["rules"].keys() == {"estop", "bumper"}
        for contact in (STOP, BUMPER):
            chip.pull(contact, up=False)
        yield engine


class Driver:
    """Drives the base a hundred times a second, in a thread."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_over = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over.wait(PERIOD_S):
            with contextlib.suppress(TaskEngineError):
                self._client.send("robot.drive", "base", 1.0, 1.0)
                self.sent += 1

    def __enter__(self) -> Driver:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()


def moves(client: Client) -> bool:
    """Whether the machine could be armed, and the base be driven forward."""
    with contextlib.suppress(TaskEngineError):
        client.arm()
        client.call("robot.drive", "base", 1.0, 1.0)
        return all(map(chip.level, (LEFT, RIGHT)))
    return False


@contextmanager
def driven(engine: Engine, client: Client) -> Iterator[None]:
    """While a client drives both wheels and the router is stopped; it goes on afterwards."""
    (router,) = engine.pids("router")
    why = []
    for _ in range(ATTEMPTS):
        wait_until(lambda: moves(client), 20, f"the wheels: {client.call('system.state')}")
        with Driver(client) as driver:
            wait_until(lambda: driver.sent > 50, 20, "commands")
            os.kill(router, signal.SIGSTOP)
            try:
                # a host that suspends the emulation for long may have had the machine stopped meanwhile
                if all(map(chip.level, (LEFT, RIGHT))):
                    yield
                    return
            finally:
                os.kill(router, signal.SIGCONT)
        why.append(str(client.call("system.state")))
    pytest.fail("\n".join(["the wheels stood before anything was done:", *why, engine.output()]))


def safe_after(engine: Engine, deed: Callable[[], object], check: Callable[[Client], None]) -> float:
    """How many seconds after the deed both wheels stand, while a client drives and the router is stopped."""
    with Client(engine.address, timeout=deadline(20)) as client:
        with driven(engine, client):
            start = time.monotonic()
            deed()
            seconds = chip.when_low(LEFT, RIGHT, LEFT_BACK, RIGHT_BACK) - start
        assert not any(map(chip.level, (LEFT, RIGHT)))  # nor by the commands that have waited
        check(client)
    return seconds


def median(what: str, again: Callable[[], float]) -> float:
    """Return the median of several times: the host may suspend the emulation in one of them."""
    found = sorted(again() for _ in range(TIMES))
    print(f"{what}, router stopped: safe after {', '.join(f'{seconds * 1000:.1f}' for seconds in found)} ms")
    return found[TIMES // 2]


def test_an_echo_that_is_lost() -> None:
    def check(client: Client) -> None:
        found: dict[str, Any] = client.call("devices.state", "nose", "base")
        assert re.search("no echo|longer than", found["nose"]["fault"])
        assert found["base"]["rules"][0].startswith("near: nose ")

    def lose() -> None:
        source.kill()
        source.wait()
        chip.pull(ECHO, up=False)

    with machine(BASE + NOSE) as engine, echoes() as source:
        seconds = safe_after(engine, lose, check)
    print(f"echo lost, router stopped: safe after {seconds * 1000:.1f} ms, of which its max_age is {AGE_S * 1000:g} ms")
    assert seconds < AGE_S + LIMIT_S + EMULATED_S


def test_a_stop_input_that_opens(engine: Engine) -> None:
    def check(client: Client) -> None:
        state = client.call("system.state")
        assert (state["armed"], state["by"], state["why"]) == (False, "a rule", "estop: the stop input is open")
        wait_until(lambda: len(client.call("system.check")["reasons"]) == 1, 5, "the driver's end")
        assert client.call("system.check")["reasons"] == ["estop: the stop input is open"]
        with pytest.raises(NotAllowed, match="cannot be armed: estop: the stop input is open"):
            client.arm()

    def again() -> float:
        seconds = safe_after(engine, lambda: chip.pull(STOP, up=True), check)
        chip.pull(STOP, up=False)
        return seconds

    assert median("stop input opened", again) < LIMIT_S


def test_a_stop_input_that_opens_for_a_moment(engine: Engine) -> None:
    def blip() -> None:
        chip.pull(STOP, up=True)
        # the kernel makes one event of edges that are closer together than its thread
        time.sleep(MOMENT_S)
        chip.pull(STOP, up=False)

    def check(client: Client) -> None:
        assert client.call("system.state")["why"] == "estop: the stop input is open"

    limit = LIMIT_S + MOMENT_S + EMULATED_S
    assert median("stop input opened for a moment", lambda: safe_after(engine, blip, check)) < limit


def test_a_bumper_that_is_pressed(engine: Engine) -> None:
    def check(client: Client) -> None:
        with pytest.raises(NotAllowed, match="bumper blocks forward"):
            client.call("robot.drive", "base", 0.5, 0.5)
        client.call("robot.drive", "base", -1.0, -1.0)
        assert all(map(chip.level, (LEFT_BACK, RIGHT_BACK)))
        assert client.call("devices.state", "base")["base"]["rules"] == ["bumper: bumper blocks forward"]
        client.call("robot.stop", "base")

    def again() -> float:
        seconds = safe_after(engine, lambda: chip.pull(BUMPER, up=True), check)
        chip.pull(BUMPER, up=False)
        return seconds

    assert median("bumper pressed", again) < LIMIT_S
