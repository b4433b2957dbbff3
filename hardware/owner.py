"""The process that owns a lane's pins: opens them, supervises leases and motions, and releases them.

Theory of operation. The lane's only task worker calls the commands, one at a time. A thread of the owner's own ends
leases, moves outputs and publishes changes, so that this happens even while a task runs, or hangs. Both hold `lock`
while they decide and drive, and whichever has it does what is due. If both hang, the guardian sees in the shared state
that a lease has ended without an action. Pulses without a lease, which software makes and which may freeze half way,
are covered by a beat of that thread in the shared state. Each input is read by a thread of its own, because a bus may
be slow, and each bus with boards has one too (`board_bus.py`), for which no other thread waits. A device that cannot be
opened is left out, and another thread tries it again.
"""

from __future__ import annotations

import contextlib
import math
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
from .backends import factory_of
from .conditions import POWER
from .control import Control, Output, safe_value, start_value
from .device_config import Device, HardwareConfig, Value
from .device_set import DeviceSet, Writer
from .effects import Effect
from .levels import needs_pulses
from .plausibility import Measurement
from .power import POWER_S, Power
from .restraints import rules_of
from .sensors import Sensors, sample
from .shared_state import NEVER, NOBODY, SharedState

OPEN_S = 2.0
"""How long, in s, an owner waits for pins that another owner, or the guardian, is about to release."""
RETRY_S = 0.002
"""How soon, in s, it asks for them again."""
AGAIN_S = (1.0, 30.0)
"""How soon, in s, a left-out device is tried again at first, and at the longest; each time takes twice as long."""
BEAT_S = 0.1
"""How often, in s, the owner beats while it makes pulses without a lease."""
LOCK_S = 0.05
"""How long, in s, an emergency waits for another thread that drives."""
BOARDS_S = 0.3
"""How long, in s, the start waits for the first answers of boards, and the end for their last ones."""
JOIN_S = 0.5
"""How long, in s, closing waits for an input that is being read."""
NAP_S = 60.0
"""How long, in s, the owner's thread sleeps at most."""
SWITCH_S = 0.0005
"""How soon, in s, a waiting thread gets the interpreter: leases must end even between thousands of commands."""
NO_PLACE = -1
"""The place of no output, for an owner that always beats."""
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
        self.device_set: DeviceSet | None = None
        self._threads: list[threading.Thread] = []
        self._watcher: threading.Thread | None = None
        """The thread that acts on leases and stops, and beats, also while we close."""
        self._is_over = threading.Event()
        self._is_at_rest = False
        """Whether we have brought every output to its safe state for good, and only wait for boards and inputs."""
        self._is_closed = threading.Event()
        self._failing: set[str] = set()
        self._lost: set[str] = set()
        """Outputs of which was said that their boards are lost."""
        self._switch_s = sys.getswitchinterval()
        self.lock = threading.Lock()
        self.asleep_until = 0.0
        """Until when the thread sleeps, unless it is woken."""
        self._power = Power(pins)
        rules = rules_of(layout, lane, time.monotonic(), is_power_watched=self._power.is_told)
        self.control = Control(
            lane, self._devices, panel, self._tell, exclusive=layout.exclusive, position=position, rules=rules
        )
        self._at: Callable[[Device], Value] = start_value
        """The value of an output when its pins are claimed."""
        self._pulsing: set[int] = set()
        """Outputs, by their places, that have pulses without a lease, or whose boards are to make them safe.

        NO_PLACE is for an owner that always beats, `sending.STOP` for a stop.
        """
        self.control.pend, self.control.calm = self._pulse, self._calm
        self.sensors = Sensors((), self._publish, self._keep, self._complain)
        self.left_out: dict[str, str] = {}
        """Devices that could not be opened, and the reason."""

    def open(self) -> None:
        """Get the pins without moving anything, or, after another owner, bring them to their safe states.

        Raises PinsInUse if another owner keeps them, SettingsError if this machine has none.
        """
        self._take()
        if self.panel.owner(self._lane) != NOBODY:
            self._at = self._safe
        factory = factory_of(self._pins, self._layout, self._devices)
        device_set = self.device_set = DeviceSet(self._devices, factory, self._at, partial(self.panel.ring, self._lane))
        self.left_out = device_set.failed
        # values that a dead owner has left are not ours
        self.panel.beat(self._lane, NEVER)
        with self.lock:
            for output in self.control.outputs.values():
                output.failure = device_set.failed.get(output.device.name, "")
                if not output.failure:
                    self._attach(output, device_set)
            at = {output.place: self._at(output.device) for output in self.control.outputs.values()}
            self.control.begin(at, time.monotonic())
            self.panel.begin(self._lane, os.getpid())
        for name, reason in self.left_out.items():
            self._say(f"[HARDWARE] Left out: {name}: {reason}")
            # earlier publications about it are not true any more
            unknown = {**sample(None, time.monotonic()), "reason": f"left out: {reason}"}
            self._publish(self._layout.devices[name], unknown)
            self._judge_left_out(name, reason)
        judged = self.control.restraints.rules.watched
        self.sensors = Sensors(self._inputs(device_set), self._publish, self._keep, self._complain, self._sense, judged)
        sys.setswitchinterval(SWITCH_S)
        self.sensors.start()
        self._watcher = threading.Thread(target=self._watch, name="outputs", daemon=True)
        self._watcher.start()
        works: dict[str, Callable[[], None]] = {"left out": self._try_again} if self.left_out else {}
        if POWER in judged:
            works["supply"] = self._watch_power
        for name, work in works.items():
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        device_set.wait_for_boards(lambda station: station.machine.has_answered, BOARDS_S)
        self.heed_boards()

    def close(self) -> None:
        """Bring every output to its safe state, and release the pins. May be called twice."""
        with self.lock:
            if self.device_set is None:
                return
            self._is_over.set()
            self.control.rest(time.monotonic())
            self._is_at_rest = True
        self.panel.ring(self._lane)
        # the pins are safe; a board that does not answer is the guardian's
        self.device_set.wait_for_boards(lambda station: station.machine.is_settled, BOARDS_S)
        with self.lock:
            self.control.heed(time.monotonic())
        self.sensors.close(JOIN_S)
        for thread in self._threads:
            thread.join(JOIN_S)
        sys.setswitchinterval(self._switch_s)
        with self.lock:
            # nothing is written to closed devices, which would end this process
            device_set, self.device_set = self.device_set, None
        device_set.let_go()
        device_set.join_boards(BOARDS_S)
        # until here the guardian takes an owner that hangs for what it is, and one that waits for a board for well
        self._is_closed.set()
        self.panel.ring(self._lane)
        if self._watcher is not None:
            self._watcher.join(JOIN_S)
        self.panel.beat(self._lane, NEVER)
        # the next owner waits for nothing else
        self.panel.give(self._lane)
        device_set.close()

    def rest_at_once(self) -> None:
        """Bring every output to its safe state, from any thread, and keep other threads from driving.

        The engine is gone.

        It waits at most 50 ms for another thread that drives, and hangs, and then for boards.
        """
        self._is_over.set()
        self.lock.acquire(timeout=LOCK_S)  # never released
        if self.device_set is not None:
            outputs = [output.device for output in self.control.outputs.values()]
            # nobody is left to report failures to
            list(self.device_set.rest(outputs, self._last))
            self.device_set.wait_for_boards(lambda station: station.machine.is_settled, BOARDS_S)

    def read(self, name: str) -> Any:
        """Return the value of an input. Raises TaskFailed if it has none in time, or was left out."""
        if name in self.left_out:
            raise TaskFailed(f"{name} was left out: {self.left_out[name]}", type="DeviceFailed")
        return self.sensors.ask(name)

    def sensed(self, name: str) -> dict[str, Any] | None:
        """Return the last value of an input: time and value, and a reason if it has none; None if it is no input."""
        if name in self.left_out and name not in self.control.outputs:
            return {"value": None, "reason": f"left out: {self.left_out[name]}"}
        if name not in self.sensors.known:
            return None
        state, fault = self.sensors.state(name), self.control.restraints.rules.faults.get(name)
        return {**state, "fault": fault} if fault else state

    def _sense(self, device: Device, reading: Measurement) -> None:
        """Have rules act on a reading, in the thread that has it."""
        self._judge(device.name, reading)

    def _judge(self, name: str, reading: Measurement) -> None:
        with self.lock:
            if not self._is_over.is_set():
                self._surely(partial(self.control.sense, name, reading))
                self.hurry()

    def _judge_left_out(self, name: str, reason: str) -> None:
        """Have rules take an input that could not be opened at its worst value."""
        self._judge(name, Measurement(time.monotonic(), None, f"left out: {reason}"))

    def _watch_power(self) -> None:
        """Have rules act on what the firmware says of the supply."""
        while not self._is_over.is_set():
            self._judge(POWER, self._power.measure(time.monotonic()))
            self._is_over.wait(POWER_S)

    def _inputs(self, device_set: DeviceSet) -> Iterator[tuple[Device, Any]]:
        """Yield the inputs that were opened; an encoder goes on from where its last owner was."""
        for device in self._devices:
            if not device.kind.is_output and device.place in device_set.opened:
                yield device, self._resumed(device, device_set)

    def _resumed(self, device: Device, device_set: DeviceSet) -> Any:
        """Return an open input that continues from its last owner's count."""
        opened = device_set.opened[device.place]
        if not device.kind.counts:
            return opened
        count = self.panel.last(device.place, device.kind.role)
        if count is not None:
            opened.steps = count
        if "bounce_time" in device.options:
            # gpiozero's RotaryEncoder sets an attribute that pins do not have
            opened.a.pin.bounce = opened.b.pin.bounce = device.options["bounce_time"]
        return opened

    def _keep(self, device: Device, value: float) -> None:
        """Keep the count of an encoder for the next owner."""
        self.panel.note(device.place, value)

    def hurry(self) -> None:
        """Do what is due, and wake the thread if something is due before it would wake; the lock is held."""
        if self.control.due <= time.monotonic():
            self._surely(self.control.tick)
        if self.control.due < self.asleep_until:
            self.asleep_until = 0.0
            self.panel.ring(self._lane)

    def heed_boards(self) -> None:
        """Act on what boards report, so that nobody is told a stale value."""
        if self.control.has_boards:
            with self.lock:
                self._surely(self.control.tick)

    def stop(self, *, by: str = "", why: str = "", id: bytes = b"") -> None:
        """Bring every output of all lanes to its safe state; the lock is held."""
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
        """Return the last value of an output."""
        output = self.control.outputs[device.name]
        return output.motion.after if isinstance(output.motion, Effect) else output.value

    def _attach(self, output: Output, device_set: DeviceSet) -> None:
        """Have an output drive its pins, which are at its value."""
        write = device_set.writers[output.place]
        output.failure = ""
        if output.device.boards:
            # a board's pulses go on as they are when we hang
            output.write = write
            self.control.attach(output, device_set.boards_of(output.device))
            return
        output.write = write if output.lease_ns else partial(self._write, output, write)
        if not output.lease_ns and needs_pulses(output.device, self._at(output.device)):
            self._pulse(output.place)

    def _write(self, output: Output, write: Writer, value: Value) -> None:
        """Drive an output that has no lease."""
        if needs_pulses(output.device, value):
            self._pulse(output.place)
            write(value)
            return
        write(value)
        self._calm(output.place)

    def _calm(self, place: int) -> None:
        """Note that nothing is to happen to the output at this place if we hang."""
        self._pulsing.discard(place)
        if not self._pulsing:
            self.panel.beat(self._lane, NEVER)

    def _pulse(self, place: int) -> None:
        """Begin to beat: the output at this place has pulses without a lease, or its board is to make it safe."""
        if not self._pulsing:
            self.panel.beat(self._lane, time.monotonic_ns())
            self.panel.ring(self._lane)
        self._pulsing.add(place)

    def _try_again(self) -> None:
        """Open the left-out devices as soon as that is possible, and report nothing until then."""
        for pause in _pauses():
            if self._is_over.wait(pause) or not self.left_out:
                return
            for device in [device for device in self._devices if device.name in self.left_out]:
                device_set = self.device_set
                if device_set is not None and device_set.again(device):
                    self._begin(device, device_set)

    def _begin(self, device: Device, device_set: DeviceSet) -> None:
        """Begin with a left-out device that can be opened now."""
        with self.lock:
            if device.kind.is_output:
                output = self.control.outputs[device.name]
                self._attach(output, device_set)
                if output.device.boards:
                    self.control.begin_lost(output, time.monotonic())
                self._tell(output, time.monotonic())
            else:
                self.sensors.add(device, self._resumed(device, device_set))
        self._say(f"[HARDWARE] Opened at last: {device.name}")

    def _watch(self) -> None:
        """Do what is due, until the end. An unexpected error here ends the process, which the guardian sees.

        The guardian reports which priorities the kernel refuses.
        """
        priority.hurry()
        self.panel.watch(self._lane, threading.get_native_id())
        if self._layout.watchdog:
            # the watchdog is fed while we live, and we live while this thread acts
            with self.lock:
                self._pulse(NO_PLACE)
        bell = self.panel.bell(self._lane)
        rung = select.poll()
        rung.register(bell, select.POLLIN)
        while not self._is_closed.is_set():
            with self.lock:
                self.asleep_until = min(self._due(), time.monotonic() + (BEAT_S if self._pulsing else NAP_S))
                nap = max(0.0, self.asleep_until - time.monotonic())
            if rung.poll(1000 * nap):
                with contextlib.suppress(BlockingIOError):  # another process of this lane has heard it
                    os.eventfd_read(bell)
            with self.lock:
                self.asleep_until = 0.0
                if not self._is_over.is_set():
                    self._surely(self.control.tick)
                else:
                    self._act_at_rest()
                if self._pulsing:
                    self.panel.beat(self._lane, time.monotonic_ns())

    def _act_at_rest(self) -> None:
        """Heed boards while we close; a stop finds everything at rest, and the guardian is not to wait for us."""
        if self.device_set is not None:
            self._surely(self.control.heed)
        if self._is_at_rest:
            self.panel.act(self._lane, self.panel.number)

    def _due(self) -> float:
        """Return when the control has something to do; while we close, only boards are heeded, with each beat."""
        return math.inf if self._is_over.is_set() else self.control.due

    def _surely(self, step: Callable[[float], None]) -> None:
        """Make pins safe, or end the process.

        An owner that cannot drive its pins must not keep them from the guardian.
        """
        try:
            step(time.monotonic())
        except Exception as error:
            self._complain("an output", f"{type(error).__name__}: {error}")
            os._exit(1)

    def _complain(self, name: str, reason: str) -> None:
        if name not in self._failing:
            self._failing.add(name)
            self._say(f"[HARDWARE] {name} fails: {reason}")

    def _tell(self, output: Output, now: float) -> bool:
        name = output.device.name
        if output.failure:
            if name not in self._lost:
                self._lost.add(name)
                self._say(f"[HARDWARE] {name} fails: {output.failure}")
            return self._publish(output.device, {**sample(None, now), "reason": output.failure})
        if name in self._lost:
            self._lost.discard(name)
            self._say(f"[HARDWARE] {name} works again")
        return self._publish(output.device, sample(output.value, now))

    def _publish(self, device: Device, value: Any) -> bool:
        """Publish a value; return False if it has to be published again later."""
        try:
            publish_owned(TOPIC + device.name, value)
        except Overloaded:
            return False
        except TaskEngineError as error:
            self._complain(device.name, f"{type(error).__name__}: {error}")
        return True


def _pauses() -> Iterator[float]:
    """Yield the pauses, in s, before each attempt to open a left-out device."""
    pause, longest = AGAIN_S
    while True:
        yield pause
        pause = min(2 * pause, longest)
