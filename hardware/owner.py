"""The process that has a lane's pins: opens them, watches over leases and motions, and lets go of them.

Theory of operation. The lane's only task worker calls the commands, one at a time; a thread of the owner's own ends
leases, moves what is on its way and tells what has changed, so that this happens also while a task runs, or hangs. Both
hold `lock` while they decide and drive, and whoever has it does what is due. Where even that stands still, the
guardian sees from the panel that a lease has ended and nobody has acted on it; for pulses without a lease, which
software makes and which may stand still in the middle, that thread beats on the panel. Each input is read by a thread
of its own, since a bus may be slow. A device that cannot be opened is left out, and yet another thread tries it again.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from taskengine import Overloaded, TaskEngineError, TaskFailed, position, publish_owned

from . import priority
from .backends import BACKENDS
from .control import Control, Output, safe_value, start_value
from .device_config import Device, HardwareConfig, Value
from .device_set import DeviceSet, Writer
from .levels import needs_pulses
from .motion import Pulse
from .sensors import Sensors, sample
from .shared_state import NEVER, NOBODY, SharedState

OPEN_S = 2.0
"""How long an owner waits for pins that another one, or the guardian, is about to give back."""
RETRY_S = 0.002
"""How soon it asks for them again."""
AGAIN_S = (1.0, 30.0)
"""How soon a device that was left out is tried again at first, and at the longest; each time takes twice as long."""
BEAT_S = 0.1
"""How often the owner shows that it lives, while it makes pulses without a lease."""
LOCK_S = 0.05
"""How long who must be safe at once waits for somebody who drives."""
JOIN_S = 0.5
"""How long closing waits for an input that is being read."""
NAP_S = 60.0
"""How long the owner's thread sleeps at most."""
SWITCH_S = 0.0005
"""How soon a thread gets the interpreter from another one: leases end between two of a thousand commands."""
TOPIC = "hardware."


class PinsInUse(RuntimeError):
    """Another process has a lane's pins."""


class Owner:
    """The owner of `lane`; `say` prints a line. `open` gets the pins."""

    def __init__(
        self, layout: HardwareConfig, lane: str, panel: SharedState, pins: str, say: Callable[[str], None]
    ) -> None:
        self._layout = layout
        self._lane = lane
        self.panel = panel
        self._pins = pins
        self._say = say
        self._devices = layout.of(lane)
        self.rig: DeviceSet | None = None
        self._threads: list[threading.Thread] = []
        self._is_over = threading.Event()
        self._failing: set[str] = set()
        self._switch_s = sys.getswitchinterval()
        self.lock = threading.Lock()
        self.asleep_until = 0.0
        """Until when the thread sleeps, if nobody wakes it."""
        self.control = Control(lane, self._devices, panel, self._tell, exclusive=layout.exclusive, position=position)
        self._at: Callable[[Device], Value] = start_value
        """What an output has when its pins are claimed."""
        self._pulsing: set[int] = set()
        """Outputs without a lease that have pulses, by their places."""
        self.sensors = Sensors((), self._publish, self._keep, self._complain)
        self.left_out: dict[str, str] = {}
        """Devices that could not be opened, and why."""

    def open(self) -> None:
        """Get the pins, moving nothing, or, after another owner, bring them to where they are safe.

        Raises PinsInUse where another owner keeps them, SettingsError where this machine has none.
        """
        self._take()
        if self.panel.owner(self._lane) != NOBODY:
            self._at = self._safe
        rig = self.rig = DeviceSet(self._devices, BACKENDS[self._pins](self._layout), self._at)
        self.left_out = rig.failed
        # what a dead owner has left there is not ours
        self.panel.beat(self._lane, NEVER)
        with self.lock:
            for output in self.control.outputs.values():
                output.failure = rig.failed.get(output.device.name, "")
                if not output.failure:
                    self._attach(output, rig.writers[output.place])
            at = {output.place: self._at(output.device) for output in self.control.outputs.values()}
            self.control.begin(at, time.monotonic())
            self.panel.begin(self._lane, os.getpid())
        for name, reason in self.left_out.items():
            self._say(f"[HARDWARE] Left out: {name}: {reason}")
            # what was published of it before is not so any more
            unknown = {**sample(None, time.monotonic()), "reason": f"left out: {reason}"}
            self._publish(self._layout.devices[name], unknown)
        self.sensors = Sensors(self._inputs(rig), self._publish, self._keep, self._complain)
        sys.setswitchinterval(SWITCH_S)
        self.sensors.start()
        works = {"outputs": self._watch, **({"left out": self._try_again} if self.left_out else {})}
        for name, work in works.items():
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Bring every output to where it is safe, and let go of the pins. May be called twice."""
        with self.lock:
            if self.rig is None:
                return
            self._is_over.set()
            self.control.rest(time.monotonic())
        self.panel.ring(self._lane)
        self.sensors.close(JOIN_S)
        for thread in self._threads:
            thread.join(JOIN_S)
        sys.setswitchinterval(self._switch_s)
        self.panel.beat(self._lane, NEVER)
        rig, self.rig = self.rig, None
        rig.let_go()
        # the next owner waits for nothing else
        self.panel.give(self._lane)
        rig.close()

    def rest_at_once(self) -> None:
        """Bring every output to where it is safe, from any thread, and let nobody else drive: the engine is gone.

        It waits 50 ms at most for somebody who drives, and hangs.
        """
        self._is_over.set()
        self.lock.acquire(timeout=LOCK_S)  # for good
        if self.rig is not None:
            outputs = [output.device for output in self.control.outputs.values()]
            # nobody is left who could be told what fails
            list(self.rig.rest(outputs, self._last))

    def read(self, name: str) -> Any:
        """What an input says now. Raises TaskFailed where it does not say so in time, or was left out."""
        if name in self.left_out:
            raise TaskFailed(f"{name} was left out: {self.left_out[name]}", type="DeviceFailed")
        return self.sensors.ask(name)

    def sensed(self, name: str) -> dict[str, Any] | None:
        """What an input said last: time and value, and a reason where it has none; None of what is no input."""
        if name in self.left_out and name not in self.control.outputs:
            return {"value": None, "reason": f"left out: {self.left_out[name]}"}
        return self.sensors.state(name) if name in self.sensors.known else None

    def _inputs(self, rig: DeviceSet) -> Iterator[tuple[Device, Any]]:
        """Yield the inputs that were opened; an encoder goes on from where its last owner was."""
        for device in self._devices:
            if not device.kind.is_output and device.place in rig.opened:
                yield device, self._resumed(device, rig)

    def _resumed(self, device: Device, rig: DeviceSet) -> Any:
        """Return an input that was opened, which has counted what it had for the last owner."""
        opened = rig.opened[device.place]
        if not device.kind.counts:
            return opened
        count = self.panel.last(device.place, device.kind.role)
        if count is not None:
            opened.steps = count
        if "bounce_time" in device.options:
            # gpiozero's RotaryEncoder sets an attribute that no pin has
            opened.a.pin.bounce = opened.b.pin.bounce = device.options["bounce_time"]
        return opened

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

    def stop(self, *, by: str = "", why: str = "", id: bytes = b"") -> None:
        """Bring every output of the lane to where it is safe, and have the others do so; the lock is held."""
        self._surely(partial(self.control.stop, by=by, why=why, id=id))
        self.hurry()

    def _take(self) -> None:
        """Get the lane's lock. Raises PinsInUse."""
        end = time.monotonic() + OPEN_S
        self.panel.want(self._lane, os.getpid())
        try:
            while not self.panel.take(self._lane):
                if time.monotonic() > end:
                    raise PinsInUse(
                        f"lane {self._lane}: its former owner, or the guardian, does not give its pins back"
                    )
                time.sleep(RETRY_S)
        finally:
            self.panel.want(self._lane, NOBODY)

    def _safe(self, device: Device) -> Value:
        """Return the safe value of an output that another owner had."""
        return safe_value(device, self.panel.last(device.place, device.kind.role))

    def _last(self, device: Device) -> Value:
        """What an output was told last."""
        output = self.control.outputs[device.name]
        return output.motion.after if isinstance(output.motion, Pulse) else output.value

    def _attach(self, output: Output, write: Writer) -> None:
        """Have an output drive its pins, which are at its value."""
        output.failure = ""
        output.write = write if output.lease_ns else partial(self._write, output, write)
        if not output.lease_ns and needs_pulses(output.device, self._at(output.device)):
            self._pulse(output)

    def _write(self, output: Output, write: Writer, value: Value) -> None:
        """Drive an output that has no lease."""
        if needs_pulses(output.device, value):
            self._pulse(output)
            write(value)
            return
        write(value)
        self._pulsing.discard(output.place)
        if not self._pulsing:
            self.panel.beat(self._lane, NEVER)

    def _pulse(self, output: Output) -> None:
        """An output is about to have pulses that nobody has a lease of: show that we live from here on."""
        if not self._pulsing:
            self.panel.beat(self._lane, time.monotonic_ns())
            self.panel.ring(self._lane)
        self._pulsing.add(output.place)

    def _try_again(self) -> None:
        """Open the devices that were left out, as soon as that can be, without a word until then."""
        for pause in _pauses():
            if self._is_over.wait(pause) or not self.left_out:
                return
            for device in [device for device in self._devices if device.name in self.left_out]:
                rig = self.rig
                if rig is not None and rig.again(device):
                    self._begin(device, rig)

    def _begin(self, device: Device, rig: DeviceSet) -> None:
        """A device that was left out can be had."""
        with self.lock:
            if device.kind.is_output:
                output = self.control.outputs[device.name]
                self._attach(output, rig.writers[device.place])
                self._tell(output, time.monotonic())
            else:
                self.sensors.add(device, self._resumed(device, rig))
        self._say(f"[HARDWARE] Had after all: {device.name}")

    def _watch(self) -> None:
        """Do what is due, until it is over. Whatever goes wrong here ends the process, which the guardian sees.

        The guardian says what of the priority the kernel refuses.
        """
        priority.hurry()
        self.panel.watch(self._lane, threading.get_native_id())
        bell = self.panel.bell(self._lane)
        rung = select.poll()
        rung.register(bell, select.POLLIN)
        while not self._is_over.is_set():
            with self.lock:
                self.asleep_until = min(self.control.due, time.monotonic() + (BEAT_S if self._pulsing else NAP_S))
                nap = max(0.0, self.asleep_until - time.monotonic())
            if rung.poll(1000 * nap):
                with contextlib.suppress(BlockingIOError):  # another of this lane has heard it
                    os.eventfd_read(bell)
            with self.lock:
                self.asleep_until = 0.0
                if not self._is_over.is_set():
                    self._surely(self.control.tick)
                    if self._pulsing:
                        self.panel.beat(self._lane, time.monotonic_ns())

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
            publish_owned(TOPIC + device.name, value)
        except Overloaded:
            return False
        except TaskEngineError as error:
            self._complain(device.name, f"{type(error).__name__}: {error}")
        return True


def _pauses() -> Iterator[float]:
    """Yield how long to wait before each time that a device is tried again, in s."""
    pause, longest = AGAIN_S
    while True:
        yield pause
        pause = min(2 * pause, longest)
