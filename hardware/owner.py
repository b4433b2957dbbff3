"""The process that has a lane's pins: opens them, watches over leases and motions, and lets go of them.

Theory of operation. The lane's only task worker calls the commands, one at a time; a thread of the owner's own ends
leases, moves what is on its way and tells what has changed, so that this happens also where a task hangs. Both hold
`lock` while they decide and drive. Where even that stands still, the guardian sees from the panel that a lease has
ended and nobody has acted on it. Inputs are read by another thread, since a bus may be slow.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from taskengine import Overloaded, TaskEngineError, publish
from taskengine_hardware.backends import BACKENDS
from taskengine_hardware.control import Control, Output
from taskengine_hardware.layout import Device, Layout
from taskengine_hardware.panel import Panel
from taskengine_hardware.rig import PinsInUse, Rig
from taskengine_hardware.sensors import Sensors, sample

OPEN_S = 2.0
"""How long an owner waits for pins that another one, or the guardian, is about to give back."""
RETRY_S = 0.002
JOIN_S = 0.5
"""How long closing waits for an input that is being read."""
OTHERS_S = 0.02
"""How soon a lane hears that another one was stopped."""
TOPIC = "hardware."


class Owner:
    """The owner of `lane`; `say` prints a line. `open` gets the pins."""

    def __init__(self, layout: Layout, lane: str, panel: Panel, pins: str, say: Callable[[str], None]) -> None:
        self._layout = layout
        self._lane = lane
        self.panel = panel
        self._pins = pins
        self._say = say
        self._devices = layout.of(lane)
        self.rig: Rig | None = None
        self._threads: list[threading.Thread] = []
        self._is_over = threading.Event()
        self._failing: set[str] = set()
        self.asleep_until = 0.0
        """Until when the thread sleeps, if nobody wakes it."""
        self.lock = threading.Lock()
        self._wake = threading.Condition(self.lock)
        self.left_out: dict[str, str] = {}
        """Inputs that could not be opened, and why."""
        self.control = Control(lane, self._devices, panel, self._tell)
        self.sensors = Sensors((), self._publish, 0.0)

    def open(self) -> None:
        """Get the pins, moving nothing, or, after another owner, bring them to where they are safe.

        Raises PinsInUse, SettingsError.
        """
        end = time.monotonic() + OPEN_S
        self.panel.want(self._lane, wanted=True)
        try:
            while not self.panel.take(self._lane):
                if time.monotonic() > end:
                    raise PinsInUse(
                        f"lane {self._lane}: its former owner, or the guardian, does not give its pins back"
                    )
                time.sleep(RETRY_S)
            while self.rig is None:
                try:
                    self.rig = Rig(self._devices, BACKENDS[self._pins](self._layout))
                except PinsInUse:
                    if time.monotonic() > end:
                        raise
                    time.sleep(RETRY_S)
        finally:
            self.panel.want(self._lane, wanted=False)
        with self.lock:
            for output in self.control.outputs.values():
                output.write = self.rig.writers[output.place]
            self.control.begin(is_first=self.panel.count_owner(self._lane) == 1)
        opened = self.rig.opened
        inputs = [(one, opened[one.place]) for one in self._devices if one.place in opened and not one.kind.is_output]
        self.sensors = Sensors(inputs, self._publish, time.monotonic())
        self.left_out = self.rig.failed
        for name, reason in self.left_out.items():
            self._say(f"[HARDWARE] Left out: {name}: {reason}")
        for name, work in (("outputs", self._run), ("inputs", self._read)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Bring every output to where it is safe, and let go of the pins. May be called twice."""
        with self.lock:
            if self.rig is None:
                return
            self._is_over.set()
            self.control.rest()
            self._wake.notify()
        for thread in self._threads:
            thread.join(JOIN_S)
        self.rig.close()
        self.rig = None
        self.panel.give(self._lane)

    def hurry(self) -> None:
        """Have the thread look sooner, if something is due before it wakes; the lock is held."""
        if self.control.due < self.asleep_until:
            self.asleep_until = 0.0
            self._wake.notify()

    def _run(self) -> None:
        longest = OTHERS_S if len(self._layout.lanes) > 1 else float("inf")
        while not self._is_over.is_set():
            with self.lock:
                now = time.monotonic()
                due = min(self.control.due, now + longest)
                if due > now:
                    self.asleep_until = due
                    self._wake.wait(None if due == float("inf") else due - now)
                    self.asleep_until = 0.0
                if not self._is_over.is_set():
                    self._surely(self.control.tick)

    def stop(self) -> None:
        """Bring every output of the lane to where it is safe; the lock is held."""
        self._surely(self.control.stop)
        self.hurry()

    def _surely(self, deed: Callable[[float], None]) -> None:
        """Do what makes pins safe, or end: whoever cannot drive its pins must not keep them from the guardian."""
        try:
            deed(time.monotonic())
        except Exception as error:
            self._complain("an output", error)
            os._exit(1)

    def _read(self) -> None:
        self.sensors.run(self._is_over, self._complain)

    def _complain(self, name: str, error: Exception) -> None:
        if name not in self._failing:
            self._failing.add(name)
            self._say(f"[HARDWARE] {name} fails: {type(error).__name__}: {error}")

    def _tell(self, output: Output, now: float) -> None:
        self._publish(output.device, sample(output.value, now))

    def _publish(self, device: Device, value: Any) -> None:
        try:
            with contextlib.suppress(Overloaded):  # there will be another sample
                publish(TOPIC + device.name, value)
        except TaskEngineError as error:
            self._complain(device.name, error)
