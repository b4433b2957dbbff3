"""`python -m bench.rules`: measure how much slower servo commands are with ten rules than without, in pairs.

Two engines on mock pins, each with sixteen servos and eight inputs, one of them with ten rules. They get the same
packages and calls in turns; each pair has a ratio, of which the median counts. Exits with 1 above LIMIT.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.compiled import NotCompiled, check_compiled
from bench.hardware import CHUNK, OWNER, TASKS, calls, names, table
from bench.processes import family

LIMIT = 1.05
"""The ratio that may be measured at most."""
ROUNDS = 41
SINGLES = 200
FIRST_PIN = 20
"""The GPIO of the first contact."""
DOORS = 4
MEASURED = ("time", "processor time of the owner")


def inputs(folder: Path, stop: str = "") -> str:
    """Return the settings of eight inputs; the processor's heat is a file in the folder."""
    (folder / "heat").write_text("40000\n")
    contacts = {"estop": stop, **{f"door{number}": "" for number in range(DOORS)}}
    devices = [
        f'[hardware.devices.{name}]\ntype = "Button"\npin = {FIRST_PIN + number}\n{more}\n'
        for number, (name, more) in enumerate(contacts.items())
    ]
    devices += [
        f'[hardware.devices.heat]\ntype = "CPUTemperature"\nsensor_file = "{folder}/heat"\nrate = 50\n',
        '[hardware.devices.load]\ntype = "LoadAverage"\n',
        '[hardware.devices.disk]\ntype = "DiskUsage"\n',
    ]
    return "\n".join(devices)


def rules(folder: Path) -> str:
    """Return the settings of these inputs with ten rules, of which none holds."""
    conditions = [f"door{number}" for number in range(DOORS)]
    conditions += ["heat > 90", "heat < -20", "load > 9999", "disk > 99.9999", "heat > 80 and load > 9000"]
    tables = [
        f'[hardware.rules.rule{number}]\nwhen = "{when}"\nthen = "stop"\ndevices = {names()}\n'.replace("'", '"')
        for number, when in enumerate(conditions)
    ]
    return "\n".join([inputs(folder, 'stops = true\nnormally = "open"'), *tables])


class Side:
    """One of the engines, and a client."""

    def __init__(self, pid: int, client: Any) -> None:
        self._client = client
        (self._owner,) = [child for child, name in family(pid).items() if name.startswith(OWNER)]

    def package(self) -> tuple[float, float]:
        """Send one package; return the seconds that it takes, and those of the owner's processor time."""
        devices, values = calls()
        before, start = self._spent(), time.perf_counter()
        self._client.map("servo.set", devices, values)
        return time.perf_counter() - start, self._spent() - before

    def singles(self) -> tuple[float]:
        """Call one by one; return the median seconds of a call."""
        took = []
        for number in range(SINGLES):
            start = time.perf_counter()
            self._client.call("servo.set", names()[number % len(names())], (number % 201 - 100) / 100)
            took.append(time.perf_counter() - start)
        return (statistics.median(took),)

    def _spent(self) -> float:
        """Return the processor time of all threads of the owner so far, in s (proc(5), schedstat)."""
        threads = Path(f"/proc/{self._owner}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def paired(
    measure: Callable[[Side], tuple[float, ...]], without: Side, ruled: Side, rounds: int
) -> list[tuple[float, ...]]:
    """Return the ratios of measurements with rules and without, in turns, the first one in turns too."""
    found = []
    for number in range(rounds):
        if number % 2:
            slow, quick = measure(ruled), measure(without)
        else:
            quick, slow = measure(without), measure(ruled)
        found.append(tuple(one / other for one, other in zip(slow, quick, strict=True)))
    return found


def main() -> int:
    """Return the exit code."""
    try:
        check_compiled()
    except NotCompiled as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    from bench.engine import Engine
    from taskengine import Client

    settings: dict[str, Any] = {"pins": "mock", "chunking_size": CHUNK, "enable_stdout": False}
    with (
        tempfile.TemporaryDirectory() as folder,
        Engine(config=table() + inputs(Path(folder)), tasks="taskengine.tasks", **settings) as plain,
        Engine(config=table() + rules(Path(folder)), tasks="taskengine.tasks", **settings) as other,
        Client(plain.address, timeout=60) as first,
        Client(other.address, timeout=60) as second,
    ):
        time.sleep(1.0)  # until all inputs have been read
        state = second.call("system.state")
        if state["rules"] or not state["armed"]:
            raise SystemExit(f"bench: a rule holds: {state}")
        without, ruled = Side(plain.pid, first), Side(other.pid, second)
        found = {
            f"{TASKS} servo.set, one package": paired(Side.package, without, ruled, ROUNDS),
            "servo.set, call and answer": paired(Side.singles, without, ruled, ROUNDS // 2),
        }
    is_slow = False
    for what, ratios in found.items():
        for measured, column in zip(MEASURED, zip(*ratios, strict=True), strict=False):
            low, middle, high = statistics.quantiles(column, n=4)
            print(f"{what}, {measured}: with ten rules {middle:.3f} times ({low:.3f} to {high:.3f})")
            is_slow |= middle > LIMIT
    return int(is_slow)


if __name__ == "__main__":
    sys.exit(main())
