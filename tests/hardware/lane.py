"""A lane's control without pins and without a clock, for tests: what it writes and tells are lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskengine import Origin
from taskengine_hardware import SharedState, read
from taskengine_hardware.control import Control, Output, checked, start_value
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.outputs import NS
from taskengine_hardware.plausibility import Measurement
from taskengine_hardware.restraints import rules_of


def call(client: str, received: float, sent: float | None = None, **where: Any) -> Origin:
    """Where a call came from; times in s. It says that it was sent as it was received, or not when, where that is 0."""
    at = int((received if sent is None else sent) * NS)
    holder = where.pop("holder", client.encode())
    return Origin(client, client.encode(), holder, int(received * NS), at, **where)


class Lane:
    """A control of these devices."""

    def __init__(self, devices: Mapping[str, Any], panel: SharedState | None = None, **table: Any) -> None:
        self.layout = read({"devices": devices, **table})
        self.panel = panel or SharedState(self.layout)
        self.writes: list[tuple[str, Value]] = []
        self.tells: list[tuple[str, Value, float]] = []
        self.is_full = False
        """Nobody takes publications."""
        self.position = 0
        """That of the task which runs."""
        self.control = Control(
            LANE,
            self.layout.of(LANE),
            self.panel,
            self.tell,
            exclusive=self.layout.exclusive,
            position=lambda: self.position,
            rules=rules_of(self.layout, LANE),
        )
        for output in self.control.outputs.values():
            output.write = self.writer(output.device.name)
        self.control.begin({device.place: start_value(device) for device in self.layout.devices.values()})

    def close(self) -> None:
        """Close what a panel has open until its process ends, where a test makes thousands of them."""
        self.panel.close()

    def writer(self, name: str) -> Any:
        """Writes down what an output is told."""
        return lambda value: self.writes.append((name, value))

    def tell(self, output: Output, now: float) -> bool:
        """Takes a publication."""
        self.tells.append((output.device.name, output.value, now))
        return not self.is_full

    def output(self, name: str) -> Output:
        """An output."""
        return self.control.find(name)

    def value(self, name: str) -> Value:
        """Return the last value of an output."""
        return self.control.find(name).value

    def set(self, name: str, value: Any, now: float, origin: Origin) -> None:
        """Have an output take a value."""
        output = self.control.find(name)
        self.control.command(output, checked(output, value), origin, now)

    def sense(self, name: str, value: Any, now: float, reason: str = "") -> None:
        """Have an input say something."""
        self.control.sense(name, Measurement(now, value, reason), now)

    def run(self, start: float, end: float) -> None:
        """Call `tick` whenever it is due."""
        now = max(start, self.control.due)
        for _ in range(100_000):
            if now > end:
                return
            self.control.tick(now)
            assert self.control.due > now
            now = self.control.due
        raise AssertionError("it never rests")


def stop_and_arm(lane: Lane, now: float, by: str = "boss") -> None:
    lane.control.stop(now)
    lane.control.arm(call(by, now + 0.1), now + 0.1)
