"""The process that has a lane's pins: opens them, watches over leases and motions, and lets go of them.

Theory of operation. The lane's only task worker calls the commands, one at a time; a thread of the owner's own ends
leases, moves what is on its way and tells what has changed, so that this happens also while a task runs, or hangs. Both
hold `lock` while they decide and drive, and whoever has it does what is due. Where even that stands still, the
guardian sees from the panel that a lease has ended and nobody has acted on it. Each input is read by a thread of its
own, since a bus may be slow.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from taskengine import Overloaded, TaskEngineError, TaskFailed, publish
from taskengine_hardware.backends import BACKENDS
from taskengine_hardware.control import Control, Output
from taskengine_hardware.layout import Device, Layout
from taskengine_hardware.panel import NOBODY, Panel
from taskengine_hardware.rig import PinsInUse, Rig
from taskengine_hardware.sensors import Sensors, sample

OPEN_S = 2.0
"""How long an owner waits for pins that another one, or the guardian, is about to give back."""
RETRY_S = 0.002
JOIN_S = 0.5
"""How long closing waits for an input that is being read."""
NAP_S = 60.0
"""How long the owner's thread sleeps at most."""
SWITCH_S = 0.0005
"""How soon a thread gets the interpreter from another one: leases end between two of a thousand commands."""
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
        self._switch_s = sys.getswitchinterval()
        self.lock = threading.Lock()
        self.asleep_until = 0.0
        """Until when the thread sleeps, if nobody wakes it."""
        self.control = Control(lane, self._devices, panel, self._tell)
        self.sensors = Sensors((), self._publish, self._keep, self._complain)
        self.left_out: dict[str, str] = {}
        """Inputs that could not be opened, and why."""

    def open(self) -> None:
        """Get the pins, moving nothing, or, after another owner, bring them to where they are safe.

        Raises PinsInUse, SettingsError.
        """
        end = time.monotonic() + OPEN_S
        self.panel.want(self._lane, os.getpid())
        try:
            while not self.panel.take(self._lane):
                if time.monotonic() > end:
                    raise PinsInUse(
                        f"lane {self._lane}: its former owner, or the guardian, does not give its pins back"
                    )
                time.sleep(RETRY_S)
            rig = self.rig = self._open_rig(end)
        finally:
            self.panel.want(self._lane, NOBODY)
        with self.lock:
            for output in self.control.outputs.values():
                output.write = rig.writers[output.place]
            self.control.begin(is_first=self.panel.owner(self._lane) == NOBODY)
            self.panel.begin(self._lane, os.getpid())
        self.left_out = rig.failed
        for name, reason in self.left_out.items():
            self._say(f"[HARDWARE] Left out: {name}: {reason}")
        self.sensors = Sensors(self._inputs(rig), self._publish, self._keep, self._complain)
        sys.setswitchinterval(SWITCH_S)
        self.sensors.start()
        thread = threading.Thread(target=self._watch, name="outputs", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Bring every output to where it is safe, and let go of the pins. May be called twice."""
        with self.lock:
            if self.rig is None:
                return
            self._is_over.set()
            self.control.rest()
        self.panel.ring(self._lane)
        self.sensors.close(JOIN_S)
        for thread in self._threads:
            thread.join(JOIN_S)
        sys.setswitchinterval(self._switch_s)
        self.rig.close()
        self.rig = None
        self.panel.give(self._lane)

    def read(self, name: str) -> Any:
        """What an input says now. Raises TaskFailed where it does not say so in time, or was left out."""
        if name in self.left_out:
            raise TaskFailed(f"{name} was left out: {self.left_out[name]}", type="LookupError")
        return self.sensors.ask(name)

    def sensed(self, name: str) -> dict[str, Any] | None:
        """What an input said last: time and value, and a reason where it has none; None of what is no input."""
        if name in self.left_out:
            return {"value": None, "reason": f"left out: {self.left_out[name]}"}
        return self.sensors.state(name) if name in self.sensors.known else None

    def _inputs(self, rig: Rig) -> Iterator[tuple[Device, Any]]:
        """The inputs that were opened; an encoder goes on from where its last owner was."""
        for device in self._devices:
            if device.kind.is_output or device.place not in rig.opened:
                continue
            opened = rig.opened[device.place]
            if device.kind.counts:
                self._go_on_counting(device, opened)
            yield device, opened

    def _go_on_counting(self, device: Device, opened: Any) -> None:
        count = self.panel.last(device.place, device.kind.role)
        if count is not None:
            opened.steps = count
        if "bounce_time" in device.options:
            # gpiozero's RotaryEncoder sets an attribute that no pin has
            opened.a.pin.bounce = opened.b.pin.bounce = device.options["bounce_time"]

    def _keep(self, device: Device, value: float) -> None:
        """Keep what an encoder has counted, for the next owner."""
        self.panel.note(device.place, value)

    def hurry(self) -> None:
        """Do what is due, and have the thread look sooner where something will be before it wakes; the lock is held."""
        if self.control.due <= time.monotonic():
            self._surely(self.control.tick)
        if self.control.due < self.asleep_until:
            self.asleep_until = 0.0
            self.panel.ring(self._lane)

    def stop(self) -> None:
        """Bring every output of the lane to where it is safe, and have the others do so; the lock is held."""
        self._surely(self.control.stop)
        self.hurry()

    def _open_rig(self, end: float) -> Rig:
        while True:
            try:
                return Rig(self._devices, BACKENDS[self._pins](self._layout))
            except PinsInUse:
                if time.monotonic() > end:
                    raise
                time.sleep(RETRY_S)

    def _watch(self) -> None:
        """Do what is due, until it is over. Whatever goes wrong here ends the process, which the guardian sees."""
        bell = self.panel.bell(self._lane)
        rung = select.poll()
        rung.register(bell, select.POLLIN)
        while not self._is_over.is_set():
            with self.lock:
                self.asleep_until = min(self.control.due, time.monotonic() + NAP_S)
                nap = max(0.0, self.asleep_until - time.monotonic())
            if rung.poll(1000 * nap):
                with contextlib.suppress(BlockingIOError):  # another of this lane has heard it
                    os.eventfd_read(bell)
            with self.lock:
                self.asleep_until = 0.0
                if not self._is_over.is_set():
                    self._surely(self.control.tick)

    def _surely(self, deed: Callable[[float], None]) -> None:
        """Do what makes pins safe, or end: whoever cannot drive its pins must not keep them from the guardian."""
        try:
            deed(time.monotonic())
        except Exception as error:
            self._complain("an output", f"{type(error).__name__}: {error}")
            os._exit(1)

    def _complain(self, name: str, reason: str) -> None:
        if name not in self._failing:
            self._failing.add(name)
            self._say(f"[HARDWARE] {name} fails: {reason}")

    def _tell(self, output: Output, now: float) -> bool:
        return self._publish(output.device, sample(output.value, now))

    def _publish(self, device: Device, value: Any) -> bool:
        """Publish; False where it has to be told again later."""
        try:
            publish(TOPIC + device.name, value)
        except Overloaded:
            return False
        except TaskEngineError as error:
            self._complain(device.name, f"{type(error).__name__}: {error}")
        return True
