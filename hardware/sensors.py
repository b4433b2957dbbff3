"""The inputs of a lane: read at a rate, on events, or on request, and published as samples with their time.

Each input is read by a thread of its own, so that an input that hangs does not delay the others. Another thread watches
all of them, and publishes that an input that hangs has no value. A reading has the time of its measurement; without a
measurement it has a reason instead of a value.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any

from taskengine import TaskFailed

from .device_config import Device
from .plausibility import Measurement
from .priority import hurry
from .probes import NotMeasured, NotYet, patience, probe_of, told
from .rule_config import is_contact

Tell = Callable[[Device, Any], bool]
Keep = Callable[[Device, float], None]
Complain = Callable[[str, str], None]
Sense = Callable[[Device, Measurement], None]
ASK_S = 0.2
"""How long, in s, a request waits for an input to be read."""
YET_S = 0.15
"""How much of that, in s, is for the first measurement of an input that was just opened."""
ACTIVATED = "when_activated"
LEAST_WATCH_S, MOST_WATCH_S = 0.05, 1.0
"""How often, in s, the inputs are checked for hanging."""


class Sensor:
    """An open input.

    `tell` gets each sample, `{"time": s, "value": …}`, or a batch of them, n rows of time and value, and returns
    whether it was published. Times are monotonic. `keep` gets the count of an encoder, and `complain` the reason for a
    missing value, the first time. `sense` gets each measurement before anything else is done with it; None for an input
    that no rule is about.
    """

    def __init__(
        self, device: Device, opened: Any, tell: Tell, keep: Keep, complain: Complain, sense: Sense | None = None
    ) -> None:
        self.device = device
        self._latest = Measurement(time.monotonic(), None, "not measured yet")
        self._probe = probe_of(device, opened)
        self._tell, self._keep, self._complain = tell, keep, complain
        self._patience = patience(device)
        self._lock = threading.Lock()
        self._told: tuple[Any, str] | None = None
        self._began: float | None = None
        self._rows: list[tuple[float, float]] = []
        self._array = _array_maker() if device.batch > 1 else list
        self._asked: queue.SimpleQueue[Future[Measurement] | None] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._sense = sense
        self._hurried: set[int] = set()
        """The threads that have been given priority."""
        self._is_urgent = is_contact_of_rules = sense is not None and is_contact(device.kind)
        for event in device.kind.events:
            # when it is heard the level may be another one: of a short stop the edges tell
            hear = partial(self._hear_edge, event == ACTIVATED) if is_contact_of_rules else self._hear
            setattr(opened, event, hear)
        self._held = 0.0
        """For how long it has been held, in s, at the last such event; 0 while it is not held."""
        self._untold: dict[str, Any] | None = None
        """A hold that has not been published yet."""
        if "hold_time" in device.options:
            opened.when_held = self._hear_hold

    def state(self) -> Measurement:
        """Return the last measurement."""
        with self._lock:
            return self._latest

    def told(self) -> dict[str, Any]:
        """Return the last measurement as it stands in the state, and for how long a button has been held."""
        with self._lock:
            told = self._latest.told()
            return {**told, "held": self._held} if "hold_time" in self.device.options else told

    def ask(self) -> Any:
        """Measure now; return the value. Raises TaskFailed without one, or not in time."""
        future: Future[Measurement] = Future()
        reading = self._late(time.monotonic())
        if reading is None:
            self._asked.put(future)
            try:
                reading = future.result(ASK_S)
            except TimeoutError:
                # a thread that hangs is not to find it later
                future.cancel()
                raise self._failure(f"not read within {ASK_S:g} s", "TimeoutError") from None
        if reading.reason:
            raise self._failure(reading.reason, "NotMeasured")
        return reading.value

    def run(self) -> None:
        """Read the input when due, and on request, until the end."""
        if self._is_urgent:
            self._hurry()
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if due <= now:
                self.sample()
                # an input that is slower than its rate skips readings
                due = max(due + 1 / self.device.rate, time.monotonic())
                continue
            try:
                future = self._asked.get(timeout=due - now)
            except queue.Empty:
                continue
            if future is None:
                return
            if future.set_running_or_notify_cancel():
                future.set_result(self._answer())

    def _hurry(self) -> None:
        """Give this thread priority, once; the guardian says what the kernel refuses."""
        thread = threading.get_ident()
        # simulated pins call us in the thread that drives them
        if thread not in self._hurried and thread != threading.main_thread().ident:
            self._hurried.add(thread)
            hurry()

    def end(self) -> None:
        """Have `run` return."""
        self._is_over.set()
        self._asked.put(None)

    def sample(self) -> None:
        """Read the input; publish a changed value, or a full batch."""
        self._take(self._read())

    def watch(self, now: float) -> None:
        """Publish that the input has no value, if a reading takes too long."""
        late = self._late(now)
        if late is None:
            return
        self._react(late)
        with self._lock:
            reading = self._late(now)
            if reading is not None:
                self._note(reading)

    def _react(self, reading: Measurement) -> None:
        """Have rules act on a measurement."""
        if self._sense is not None and (reading.value is not None or reading.reason):
            self._sense(self.device, reading)

    def _late(self, now: float) -> Measurement | None:
        """Return the measurement to publish for a reading that takes too long; None otherwise."""
        began = self._began
        if began is None or now - began <= self._patience:
            return None
        return Measurement(now, None, f"not read within {self._patience:g} s")

    def _read(self) -> Measurement:
        """Measure; measure again if that took so long that its time is uncertain."""
        while True:
            began = time.monotonic()
            self._began = began
            try:
                reading = Measurement(*self._probe())
                if reading.value is None:
                    reading = Measurement(time.monotonic(), None, "it says nothing")
            except NotYet:
                reading = Measurement(time.monotonic(), None, "")
            except Exception as error:
                reading = Measurement(time.monotonic(), None, told(error))
            with self._lock:
                self._began = None
            if time.monotonic() - began <= self._patience or self._is_over.is_set():
                return reading

    def _answer(self) -> Measurement:
        end = time.monotonic() + YET_S
        while True:
            reading = self._read()
            if reading.value is not None or reading.reason:
                self._take(reading)
                return reading
            if time.monotonic() > end:
                return reading._replace(reason="not measured yet")
            self._is_over.wait(0.01)

    def _hear(self) -> None:
        """Handle an event of the input; runs in a thread of gpiozero's, which no error may end."""
        if self.device.batch == 1:
            # an input without a value now has none at the next reading either, which publishes that
            with contextlib.suppress(NotMeasured):
                self._take(Measurement(*self._probe()))

    def _hear_hold(self, opened: Any) -> None:
        """Publish that a button has been held for another `hold_time`; runs in a thread of gpiozero's."""
        pressed = opened.active_time
        if pressed is not None:
            with self._lock:
                self._held = round(pressed, 3)
                self._untold = {**sample(self._latest.value, time.monotonic()), "held": self._held}
                self._tell_hold()

    def _tell_hold(self) -> None:
        if self._untold is not None and self._tell(self.device, self._untold):
            self._untold = None

    def _hear_edge(self, is_on: bool) -> None:
        """Handle an edge of a contact that rules are about."""
        self._hurry()
        self._react(Measurement(time.monotonic(), is_on))
        self._hear()

    def _take(self, reading: Measurement) -> None:
        self._react(reading)
        with self._lock:
            # if an event comes during a reading, the older of both is published second
            if reading.time >= self._latest.time:
                self._note(reading)

    def _note(self, reading: Measurement) -> None:
        """Note a measurement; the lock is held."""
        device = self.device
        if reading.value is None and not reading.reason:
            return
        if reading.reason and reading.reason != self._latest.reason:
            self._complain(device.name, reading.reason)
        if device.kind.counts and reading.value is not None:
            self._keep(device, float(reading.value))
        self._latest = reading
        self._tell_hold()
        if not reading.value:
            self._held = 0.0
        if device.batch > 1:
            self._rows.append((reading.time, float("nan") if reading.value is None else float(reading.value)))
            if len(self._rows) >= device.batch:
                rows, self._rows = self._rows, []
                self._tell(device, self._array(rows))
            return
        said = reading.value, reading.reason
        if (said != self._told or device.always) and self._tell(device, reading.told()):
            self._told = said

    def _failure(self, reason: str, type: str) -> TaskFailed:
        return TaskFailed(f"{self.device.name} has no value: {reason}", type=type)


def _array_maker() -> Callable[[list[tuple[float, float]]], Any]:
    import numpy

    return numpy.array


def sample(value: Any, now: float) -> dict[str, Any]:
    """Return a value and its time as they are published."""
    return {"time": now, "value": value}


class Sensors:
    """All inputs of a lane; `start` has each read in a thread, until `close`.

    `sense` gets the measurements of those that are `sensed`.
    """

    def __init__(
        self,
        devices: Iterable[tuple[Device, Any]],
        tell: Tell,
        keep: Keep,
        complain: Complain,
        sense: Sense | None = None,
        sensed: Container[str] = (),
    ) -> None:
        self._told = tell, keep, complain
        self._sense, self._sensed = sense, sensed
        self.known = {device.name: self._made(device, opened) for device, opened in devices}
        self._threads: list[threading.Thread] = []
        self._is_over = threading.Event()

    def start(self) -> None:
        """Start reading."""
        for name, sensor in self.known.items():
            self._begin(f"input {name}", sensor.run)
        self._begin("inputs", self._watch)

    def _made(self, device: Device, opened: Any) -> Sensor:
        return Sensor(device, opened, *self._told, self._sense if device.name in self._sensed else None)

    def _begin(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def add(self, device: Device, opened: Any) -> None:
        """Read one more input from now on."""
        sensor = self._made(device, opened)
        self.known = {**self.known, device.name: sensor}
        self._begin(f"input {device.name}", sensor.run)

    def ask(self, name: str) -> Any:
        """Return an input's value. Raises TaskFailed without one, or not in time."""
        return self.known[name].ask()

    def state(self, name: str) -> dict[str, Any]:
        """Return an input's last value with its time, and the reason if it has no value."""
        return self.known[name].told()

    def close(self, patience: float) -> None:
        """Stop reading; wait up to `patience` s in all for readings under way."""
        end = time.monotonic() + patience
        self._is_over.set()
        for sensor in self.known.values():
            sensor.end()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._threads.clear()

    def _watch(self) -> None:
        while not self._is_over.wait(self._interval()):
            for sensor in self.known.values():
                sensor.watch(time.monotonic())

    def _interval(self) -> float:
        fastest = min((1 / sensor.device.rate for sensor in self.known.values()), default=MOST_WATCH_S)
        return min(MOST_WATCH_S, max(LEAST_WATCH_S, fastest))
