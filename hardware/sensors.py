"""What a lane's inputs say: read at a rate, when they call or somebody asks, and told as samples with their time."""

from __future__ import annotations

import heapq
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from taskengine import TaskFailed
from taskengine_hardware.layout import Device

Tell = Callable[[Device, Any], bool]
ASK_S = 0.2
"""How long who asks waits for an input to be read."""


class Sensor:
    """An input that was opened. Raises RuntimeError for a batch without numpy.

    `tell` is given each sample, `{"time": s, "value": …}`, or a batch of them, n rows of time and value, and says
    whether that is done. Times are monotonic.
    """

    def __init__(self, device: Device, opened: Any, tell: Tell) -> None:
        self.device = device
        self.value: Any = None
        """What it said last, and was told."""
        self._opened = opened
        self._tell = tell
        self._rows: list[tuple[float, float]] = []
        self._array = _array_maker() if device.batch > 1 else list
        for event in device.kind.events:
            setattr(opened, event, self._hear)

    def read(self) -> Any:
        """What it says now."""
        return getattr(self._opened, self.device.kind.reads)

    def sample(self, now: float) -> None:
        """Read it, and tell what is new, or a batch that is full."""
        value = self.read()
        if self.device.batch > 1:
            self.value = value
            self._rows.append((now, float("nan") if value is None else float(value)))
            if len(self._rows) >= self.device.batch:
                rows, self._rows = self._rows, []
                self._tell(self.device, self._array(rows))
        elif (value != self.value or self.device.always) and self._tell(self.device, sample(value, now)):
            self.value = value

    def _hear(self) -> None:
        """It has changed, as one of gpiozero's threads says."""
        if self.device.batch == 1:
            self.sample(time.monotonic())


def _array_maker() -> Callable[[list[tuple[float, float]]], Any]:
    try:
        import numpy
    except ImportError:
        raise RuntimeError("an input with a batch needs numpy: pip install 'taskengine[numpy]'") from None
    return numpy.array


def sample(value: Any, now: float) -> dict[str, Any]:
    """A value and its time, as it is published."""
    return {"time": now, "value": value}


class Sensors:
    """All inputs of a lane, each read at its rate by whoever calls `run`, which nobody else waits for."""

    def __init__(self, devices: Iterable[tuple[Device, Any]], tell: Tell, now: float) -> None:
        self.known = {device.name: Sensor(device, opened, tell) for device, opened in devices}
        self._turns = [(now, device.place, device.name) for device in (sensor.device for sensor in self.known.values())]
        self._asked: queue.SimpleQueue[tuple[str, Future[Any]] | None] = queue.SimpleQueue()
        self._tell = tell
        self._is_over = False
        heapq.heapify(self._turns)

    def add(self, device: Device, opened: Any) -> None:
        """Read one more from now on."""
        self.known[device.name] = Sensor(device, opened, self._tell)
        heapq.heappush(self._turns, (time.monotonic(), device.place, device.name))
        self._asked.put(None)

    def ask(self, name: str) -> Any:
        """What an input says now. Raises TaskFailed where it does not say so in time."""
        future: Future[Any] = Future()
        self._asked.put((name, future))
        try:
            return future.result(ASK_S)
        except TimeoutError:
            raise TaskFailed(
                f"{name} was not read within {ASK_S:g} s: an input of its lane hangs", type="TimeoutError"
            ) from None

    def end(self) -> None:
        """Have `run` return."""
        self._is_over = True
        self._asked.put(None)

    def run(self, complain: Callable[[str, Exception], None]) -> None:
        """Read them as they are due, and those that are asked for, until the end."""
        while True:
            due = self._turns[0][0] if self._turns else None
            try:
                asked = self._asked.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                for name, error in self.look(time.monotonic()):
                    complain(name, error)
                continue
            if self._is_over:
                return
            if asked is not None:
                self._answer(*asked)

    def _answer(self, name: str, future: Future[Any]) -> None:
        try:
            future.set_result(self.known[name].read())
        except Exception as error:
            future.set_exception(error)

    def look(self, now: float) -> Iterator[tuple[str, Exception]]:
        """Read those that are due; which cannot be read, and why."""
        while self._turns and self._turns[0][0] <= now:
            due, place, name = self._turns[0]
            sensor = self.known[name]
            try:
                sensor.sample(now)
            except Exception as error:
                yield name, error
            # one that is slower than its rate skips beats
            heapq.heapreplace(self._turns, (max(due + 1 / sensor.device.rate, now), place, name))
