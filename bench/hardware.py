"""`python -m bench.hardware`: measure how fast servo commands reach pins, and how soon the machine stops.

On mock pins anywhere, on the lines of gpio-sim where it runs under that kernel (`make test-gpio` builds it), and on a
Pi's own pins with `--pins auto`: connect nothing to GPIO 4 to 19 then, sixteen servos are played.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.compiled import NotCompiled, check_compiled
from bench.figures import percentile

SERVOS = 16
FIRST_PIN = 4
LEASE_S = 60.0
TASKS = 4000
CHUNK = 50
IS_SIMULATED = "GPIO_SIM" in os.environ
"""Under emulation, which is slow: less is played."""
ROUNDS = 3 if IS_SIMULATED else 15
SINGLES = 100 if IS_SIMULATED else 500
FRAMES = 50 if IS_SIMULATED else 250
FRAME_S = 0.02
KILLS = 3 if IS_SIMULATED else 15
PATIENCE_S = 10
OWNER = "te-pin worker"
STOPS = 20 if IS_SIMULATED else 100
LOAD = 4000
"""Tasks a second beside which the machine is stopped."""
BOARD = "a020d3"


class Row(msgspec.Struct, frozen=True):
    """A figure: what, its median, its 99th percentile or other remark."""

    what: str
    median: str
    rest: str = ""


def names() -> list[str]:
    """The servos."""
    return [f"servo{number}" for number in range(SERVOS)]


def table() -> str:
    """The settings file's table of sixteen servos."""
    head = f'[hardware]\nboard = "{BOARD}"\n' if IS_SIMULATED else "[hardware]\n"
    devices = (
        f'[hardware.devices.{name}]\ntype = "Servo"\npin = {FIRST_PIN + number}\nlease = {LEASE_S}\n'
        for number, name in enumerate(names())
    )
    return head + "".join(devices)


def calls() -> tuple[list[str], list[float]]:
    """The devices and the values of a package."""
    return [names()[number % SERVOS] for number in range(TASKS)], [
        (number % 201 - 100) / 100 for number in range(TASKS)
    ]


def plain_loop() -> Callable[[], float]:
    """The same calls in a plain loop over gpiozero's servos on the same make of mock pins, in this process; in s."""
    import gpiozero

    from taskengine_hardware import read
    from taskengine_hardware.backends import mock

    layout = read({"devices": {"x": {"type": "LED", "pin": 2}}})
    factory = mock(layout)
    servos = {
        name: gpiozero.Servo(FIRST_PIN + number, initial_value=None, pin_factory=factory)
        for number, name in enumerate(names())
    }
    devices, values = calls()
    pairs = [(servos[name], value) for name, value in zip(devices, values, strict=True)]

    def run() -> float:
        start = time.perf_counter()
        for servo, value in pairs:
            servo.value = value
        return time.perf_counter() - start

    return run


def packages(client: Any, pins: str) -> Iterator[Row]:
    """4000 calls in a package, and in a plain loop, in turns."""
    devices, values = calls()
    loop = plain_loop() if pins == "mock" else None
    ours, theirs = [], []
    client.map("servo.set", devices, values)
    for _ in range(ROUNDS):
        start = time.perf_counter()
        client.map("servo.set", devices, values)
        ours.append(time.perf_counter() - start)
        if loop is not None:
            theirs.append(loop())
        state = client.call("devices.state")
        for name, value in dict(zip(devices, values, strict=True)).items():
            if abs(state[name]["value"] - value) > 1e-9:
                raise SystemExit(f"bench: {name} is at {state[name]['value']}, not at {value}")
    median = statistics.median(ours)
    yield Row(f"{TASKS} servo.set, one package", f"{median * 1000:.1f} ms", f"{TASKS / median:,.0f} a second")
    if theirs:
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        loop_ms = f"{statistics.median(theirs) * 1000:.1f} ms"
        yield Row(f"{TASKS} values, plain gpiozero loop", loop_ms, "in one process, in turns with the package")
        yield Row(
            "package over plain loop", f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"
        )


def singles(client: Any) -> Iterator[Row]:
    """Calls one by one."""
    took = []
    for number in range(SINGLES):
        start = time.perf_counter()
        client.call("servo.set", names()[number % SERVOS], (number % 201 - 100) / 100)
        took.append(time.perf_counter() - start)
    yield Row("servo.set, call and answer", f"{statistics.median(took) * 1e6:.0f} us", _p99(took, 1e6, "us"))


def stream(client: Any) -> Iterator[Row]:
    """Frames of sixteen servos at 50 Hz, each as one task and as sixteen."""
    for what, send in (("devices.write", _write_frame), ("16 servo.set", _send_frame)):
        took = []
        start = time.perf_counter()
        for frame in range(FRAMES):
            due = start + frame * FRAME_S
            while (now := time.perf_counter()) < due:
                time.sleep(max(0.0, due - now))
            send(client, frame)
            took.append(time.perf_counter() - now)
        yield Row(
            f"frame of {SERVOS} at 50 Hz, {what}", f"{statistics.median(took) * 1e6:.0f} us", _p99(took, 1e6, "us")
        )


def _write_frame(client: Any, frame: int) -> None:
    client.call("devices.write", dict.fromkeys(names(), (frame % 101 - 50) / 50))


def _send_frame(client: Any, frame: int) -> None:
    client.map("servo.set", names(), [(frame % 101 - 50) / 50] * SERVOS)


def stops(client: Any, other: Any) -> Iterator[Row]:
    """Emergency stops beside a load of so many tasks a second."""
    took = []
    period = 0.05
    count = int(LOAD * period)
    devices = [names()[number % SERVOS] for number in range(count)]
    for _ in range(STOPS):
        pending = [other.submit("servo.set", name, 0.5) for name in devices]
        other.flush()
        time.sleep(period * 0.4)
        more = [other.submit("servo.set", name, -0.5) for name in devices]
        other.flush()
        start = time.perf_counter()
        client.call("system.stop")
        took.append(time.perf_counter() - start)
        client.call("system.arm")
        for future in (*pending, *more):
            future.exception(timeout=10)
    yield Row(
        f"system.stop beside {LOAD} tasks a second", f"{statistics.median(took) * 1000:.2f} ms", _p99(took, 1000, "ms")
    )


def takeovers(client: Any, pid: int) -> Iterator[Row]:
    """The owner of the pins is killed: until commands are run again."""
    from bench.processes import family

    took = []
    for _ in range(KILLS):
        (owner,) = [child for child, name in family(pid).items() if name.startswith(OWNER)]
        start = time.perf_counter()
        os.kill(owner, signal.SIGKILL)
        while not _drives(client):
            if time.perf_counter() - start > PATIENCE_S:
                raise SystemExit("bench: no other owner of the pins came")
        took.append(time.perf_counter() - start)
    yield Row(
        "owner killed until another runs commands", f"{statistics.median(took) * 1000:.0f} ms", _p99(took, 1000, "ms")
    )


def _drives(client: Any) -> bool:
    from taskengine import WorkerLost

    try:
        client.call("servo.set", "servo0", 0.0)
    except WorkerLost:
        return False
    return True


def levels(client: Any) -> Iterator[Row]:
    """From a client's call to the line's level, and how even pulses are, read back from gpio-sim."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.gpio import chip

    took = []
    pin = FIRST_PIN
    for _ in range(50):
        client.call("servo.detach", "servo0")
        while chip.level(pin):
            time.sleep(0.001)
        start = time.perf_counter()
        client.send("servo.set", "servo0", 0.0)
        client.flush()
        while not chip.level(pin):
            if time.perf_counter() - start > 1:
                raise SystemExit("bench: the line stays low")
        took.append(time.perf_counter() - start)
    yield Row("from the client's call to the pulse", f"{statistics.median(took) * 1000:.1f} ms", _p99(took, 1000, "ms"))
    client.call("servo.set", "servo0", 0.0)
    with chip.Meter(pin) as meter:
        meter.watch(5.0)
        widths = meter.pulses(pin)
    spread = percentile(widths, 95) - percentile(widths, 5)
    yield Row(
        "width of a pulse of 1500 us",
        f"{statistics.median(widths) * 1e6:.0f} us",
        f"5 to 95 %: {spread * 1e6:.0f} us wide",
    )


def _p99(took: list[float], scale: float, unit: str) -> str:
    return f"p99 {percentile(took, 99) * scale:.2f} {unit}"


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.hardware", description=__doc__)
    parser.add_argument("--pins", default="auto" if IS_SIMULATED else "mock", help="what drives the pins")
    options = parser.parse_args()
    try:
        check_compiled()
    except NotCompiled as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    from bench.engine import Engine
    from bench.machine import this_machine
    from taskengine import Client

    machine = this_machine()
    console = Console(width=110)
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    console.print(f"{machine.name}; {machine.system}; {versions}; pins {options.pins}, chunks of {CHUNK}", markup=False)
    shown = Table("what", "median", "", box=None, pad_edge=False)
    with (
        Engine(
            config=table(), pins=options.pins, chunking_size=CHUNK, enable_stdout=False, tasks="taskengine.tasks"
        ) as engine,
        Client(engine.address, timeout=60) as client,
        Client(engine.address, timeout=60) as other,
    ):
        client.call("devices.state")
        measured = [singles(client), packages(client, options.pins), stream(client), stops(client, other)]
        measured.append(takeovers(client, engine.pid))
        if IS_SIMULATED:
            measured.append(levels(client))
        for rows in measured:
            for row in rows:
                shown.add_row(row.what, row.median, row.rest)
    console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
