"""A trial: an engine at one end of a line, drivers at the other, and outages one after the other.

`python -m tests.network.trial LINE WHEN FILE` plays it on a line of that make and writes what it saw; the router is
killed in each outage where WHEN is `restarted`. Of the drivers one lives, one is killed as soon as the line is cut, and
one shortly before it is mended, when the kernel still has what it said.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from taskengine import Client, TaskEngineError
from tests.engine import Engine, deadline
from tests.network.driver import WIRES, read_calls, said_file, wheel
from tests.network.judge import LEASE_S, Driven, Round
from tests.network.lines import ENGINE_HOST, Line

OUTAGES = (0.3, 1.0, 2.0, 4.0, 8.0)
LIVES, DIES, DIES_LATE = "lives", "dies", "dies-late"
FATES = (LIVES, DIES, DIES_LATE)
DIES_AFTER_S = 0.1
DIES_BEFORE_S = 0.15
RECOVERY_S = 30.0
"""How long a driver that lives may take to be heard again: TCP waits twice as long each time it tries."""
POLL_S = 0.1
FIN_WAIT1 = "04"
FIRST_PIN = 4
WHEELS = [wheel(fate, wire) for fate in FATES for wire in WIRES]
TASKS = '''
from gpiozero import Device
from taskengine import task


@task(name="pins.turns", lane="hardware")
def turns(numbers):
    """When each pin was driven: from when to when, monotonic s."""
    return [spans(Device.pin_factory.pin(number)) for number in numbers]


def spans(pin):
    while True:
        last, states = pin._last_change, list(pin.states)
        if pin._last_change == last:
            break
    found, end = [], None
    for state in reversed(states):
        if state.state:
            found.append((last, end))
        end, last = last, last - state.timestamp
    return found[::-1]
'''


def table() -> str:
    """The settings file: a wheel for each driver and wire."""
    pins = (range(FIRST_PIN + 2 * number, FIRST_PIN + 2 * number + 2) for number in range(len(WHEELS)))
    return "".join(
        f'[hardware.devices.{name}]\ntype = "Motor"\nforward = {forward}\nbackward = {backward}\nlease = {LEASE_S}\n'
        for name, (forward, backward) in zip(WHEELS, pins, strict=True)
    )


class Trial:
    """The engine is there, and a client of its own machine."""

    def __init__(self, line: Line, engine: Engine, client: Client, folder: Path) -> None:
        self._line, self._engine, self._client, self._folder = line, engine, client, folder
        self._drivers: dict[str, subprocess.Popen[bytes]] = {}

    def play(self, outage: float, *, is_restarted: bool) -> Round:
        """Cut the line for so long."""
        begun = time.monotonic()
        for fate in FATES:
            if fate not in self._drivers:
                self._start(fate)
        until(lambda: all(self._is_driven(begun, fate) and self._is_told(fate) for fate in FATES), RECOVERY_S)
        cut = self._line.cut()
        if is_restarted:
            for pid in self._engine.pids("router"):
                os.kill(pid, signal.SIGKILL)
        rest(cut + DIES_AFTER_S)
        self._kill(DIES)
        rest(cut + outage - DIES_BEFORE_S)
        self._kill(DIES_LATE)
        rest(cut + outage)
        mended = self._line.mend()
        until(lambda: self._is_driven(mended, LIVES), RECOVERY_S)
        until(self._is_all_delivered, RECOVERY_S)
        # what has come last has been run, and its lease is over
        time.sleep(LEASE_S + deadline(0.5))
        over = time.monotonic()
        print(f"outage of {outage:g} s: {cut - begun:.1f} s before, {over - mended:.1f} s after", flush=True)
        return Round(outage, begun, cut, mended, over, self._seen(begun))

    def _start(self, fate: str) -> None:
        for name in (wheel(fate, wire) for wire in WIRES):
            said_file(self._folder, name).unlink(missing_ok=True)
        address = f"tcp://{ENGINE_HOST}:{self._engine.settings['router_frontend']}"
        program = [sys.executable, "-m", "tests.network.driver", address, str(self._folder), fate]
        self._drivers[fate] = subprocess.Popen(["ip", "netns", "exec", self._line.driver, *program])

    def _kill(self, fate: str) -> None:
        driver = self._drivers.pop(fate)
        driver.kill()
        driver.wait()

    def _turns(self) -> dict[str, list[tuple[float, float | None]]]:
        pins = [FIRST_PIN + 2 * number for number in range(len(WHEELS))]
        with contextlib.suppress(TaskEngineError):
            return dict(zip(WHEELS, self._client.call("pins.turns", pins), strict=True))
        return {name: [] for name in WHEELS}

    def _is_driven(self, since: float, fate: str) -> bool:
        """The wheels of a driver, which lives, turn by wire 0.2, or have done so since then."""
        assert self._drivers[fate].poll() is None, f"the driver {fate} has ended"
        turns = self._turns()
        mine = [turns[wheel(fate, wire)] for wire in WIRES if wire != "seed"]
        return all(any(end is None or end > since for _, end in spans) for spans in mine)

    def _is_told(self, fate: str) -> bool:
        """The driver has had an answer by wire 0.1."""
        return said_file(self._folder, wheel(fate, "seed")).is_file()

    def _is_all_delivered(self) -> bool:
        """No dead driver's kernel still has something to send."""
        sockets = Path(f"/proc/{self._drivers[LIVES].pid}/net/tcp").read_text().splitlines()[1:]
        return not any(line.split()[3] == FIN_WAIT1 for line in sockets)

    def _seen(self, since: float) -> list[Driven]:
        turns = self._turns()
        found = []
        for fate in FATES:
            for wire in WIRES:
                name, said = wheel(fate, wire), said_file(self._folder, wheel(fate, wire))
                spans = [(start, end) for start, end in turns[name] if end is None or end > since]
                calls = [call for call in read_calls(self._folder, name) if call > since - 2 * LEASE_S]
                found.append(Driven(wire, fate, calls, spans, said.read_text() if said.is_file() else ""))
        return found

    def close(self) -> None:
        """End the drivers."""
        for fate in list(self._drivers):
            self._kill(fate)


def rest(moment: float) -> None:
    """Do nothing until then."""
    time.sleep(max(0.0, moment - time.monotonic()))


def until(done: Callable[[], bool], seconds: float) -> None:
    """Wait until it is so, or for so long: the judge sees what was."""
    end = time.monotonic() + deadline(seconds)
    while not done() and time.monotonic() < end:
        time.sleep(POLL_S)


def run(make: str, *, is_restarted: bool) -> list[Round]:
    """Play all outages."""
    with tempfile.TemporaryDirectory() as name, Line(make) as line:
        folder = Path(name)
        (folder / "taskengine.toml").write_text(table())
        (folder / "own.py").write_text(TASKS)
        settings: dict[str, Any] = {"host": "0.0.0.0", "curve": "off", "insecure": "true", "enable_stdout": "false"}
        settings |= {"pins": "mock", "tasks": "own.py", "task_workers": 1}
        with (
            Engine(cwd=folder, **settings) as engine,
            Client(f"tcp://127.0.0.1:{engine.settings['router_frontend']}", timeout=deadline(2.0)) as client,
        ):
            trial = Trial(line, engine, client, folder)
            try:
                return [trial.play(outage, is_restarted=is_restarted) for outage in OUTAGES]
            finally:
                trial.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    make, when, file = sys.argv[1:]
    Path(file).write_bytes(msgspec.json.encode(run(make, is_restarted=when == "restarted")))
