"""What a lane's inputs say: read at a rate, or when they call, and told as samples with their time."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from taskengine_hardware.layout import Device

Tell = Callable[[Device, Any], None]


class Sensor:
    """An input that was opened; `tell` is given each sample, `{"time": s, "value": …}`, or a batch of them, n rows of
    time and value. Times are monotonic."""

    def __init__(self, device: Device, opened: Any, tell: Tell) -> None:
        self.device = device
        self.value: Any = None
        self._opened = opened
        self._tell = tell
        self._rows: list[tuple[float, float]] = []
        for event in device.kind.events:
            setattr(opened, event, self._hear)

    def read(self) -> Any:
        """What it says now."""
        return getattr(self._opened, self.device.kind.reads)

    def sample(self, now: float) -> None:
        """Read it, and tell what is new, or a batch that is full."""
        value = self.read()
        if self.device.batch > 1:
            self._rows.append((now, float("nan") if value is None else float(value)))
            if len(self._rows) >= self.device.batch:
                import numpy

                rows, self._rows = self._rows, []
                self._tell(self.device, numpy.array(rows))
        elif value != self.value or self.device.always:
            self.value = value
            self._tell(self.device, sample(value, now))

    def _hear(self) -> None:
        """It has changed, as one of gpiozero's threads says; what it said a moment before is told too."""
        if self.device.batch == 1:
            self.sample(time.monotonic())


def sample(value: Any, now: float) -> dict[str, Any]:
    """A value and its time, as it is published."""
    return {"time": now, "value": value}


class Sensors:
    """All inputs of a lane, each read at its rate."""

    def __init__(self, devices: Iterable[tuple[Device, Any]], tell: Tell, now: float) -> None:
        self.known = {device.name: Sensor(device, opened, tell) for device, opened in devices}
        self._queue = [(now, device.place, device.name) for device in (sensor.device for sensor in self.known.values())]
        heapq.heapify(self._queue)

    @property
    def due(self) -> float:
        """When the next one is to be read."""
        return self._queue[0][0] if self._queue else float("inf")

    def run(self, is_over: threading.Event, complain: Callable[[str, Exception], None]) -> None:
        """Read them as they are due, until it is over."""
        while self._queue and not is_over.wait(max(0.0, self.due - time.monotonic())):
            for name, error in self.look(time.monotonic()):
                complain(name, error)

    def look(self, now: float) -> Iterator[tuple[str, Exception]]:
        """Read those that are due; which cannot be read, and why."""
        while self._queue and self._queue[0][0] <= now:
            due, place, name = self._queue[0]
            sensor = self.known[name]
            try:
                sensor.sample(now)
            except Exception as error:
                yield name, error
            # one that is slower than its rate skips beats
            period = 1 / sensor.device.rate
            heapq.heapreplace(self._queue, (max(due + period, now), place, name))
