"""The guardian: the process that brings a machine to its safe state when the owner of its pins cannot.

It does not die with the supervisor, but ends by itself within a second. It claims a lane's pins only while it holds the
lane's lock (`shared_state.py`), so only once the owner is dead, and gives them back to the next owner. It never waits
for another process, not even for the end of one that it has killed, nor for a bus (`board_bus.py`), so it also offers a
way to stop the machine past the router (`stop_socket.py`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from taskengine import SettingsError

from .backends import factory_of, warm_up, warm_up_boards
from .board_machine import NOT_YET
from .bulletin import Bulletin
from .control import safe_value
from .device_config import Device, HardwareConfig, Value
from .device_set import DeviceSet
from .failover import BLIND_S, HOLD_S, MAX_GRACE_S, NS, RETRY_S, Action, FailoverPolicy, Lateness
from .priority import hurry, is_starved, keep_memory
from .shared_state import NEVER, NOBODY, SharedState
from .stop_socket import StopSocket
from .watchdog import HardwareWatchdog

AGAIN_S = 1.0
"""How soon, in s, an unavailable device is tried again."""
LAST_S = 1
"""How long, in whole seconds, the guardian lives after the supervisor."""
BOARDS_S = 0.3
"""How long, in s, the guardian's end waits for boards."""
MAX_REASONS = 8
"""How many reasons why a device is not safe the guardian tells, until it is."""
PROBE_S = 0.002
"""How long, in s, the guardian sleeps before it kills an owner, to see how late the machine wakes it."""


class SupervisorLink(Protocol):
    """The guardian's link to the supervisor."""

    def fileno(self) -> int:
        """Return the descriptor, which is readable where `take_order` has something to do."""

    def tell_online(self) -> None:
        """Tell the supervisor that we have started."""

    def tell_alive(self) -> None:
        """Tell the supervisor that we are alive, without waiting for it."""

    def take_order(self, guardian: Any) -> None:
        """Call what the next order asks for: `meet`, `let_strangers_stop` or `end`. Raises EOFError at its end."""


class Links(NamedTuple):
    """The guardian's connections to the rest of the engine.

    `control` leads to the supervisor, to which the guardian reports every `interval` s. `say` logs a line, `warn` a
    warning, `note` writes to the audit log, `publish` publishes. `listener` takes stops past the router, None for no
    such way; strangers are processes of other users than the engine's.
    """

    control: SupervisorLink
    interval: float
    say: Callable[[str], None]
    warn: Callable[[str], None]
    note: Callable[..., object]
    publish: Callable[[str, Any], None]
    listener: socket.socket | None = None
    strangers_may: bool = False


class Guardian:
    """The guardian of all lanes."""

    def __init__(self, layout: HardwareConfig, panel: SharedState, pins: str, links: Links) -> None:
        self._layout = layout
        self._panel = panel
        self._pins = pins
        self._interval = links.interval
        self._next_beat = 0.0
        self._control = control = links.control
        self._say, self._warn = links.say, links.warn
        self._outputs = [device for device in layout.devices.values() if device.kind.is_output]
        self._on_boards = [device for device in self._outputs if device.boards]
        self._lateness = Lateness()
        self._bulletin = Bulletin(panel, links.publish, links.warn)
        shortest = min((device.lease for device in layout.devices.values() if device.lease), default=BLIND_S)
        self._policies = {
            lane: FailoverPolicy(
                [one.place for one in layout.of(lane)], shortest, max(one.stop_ramp for one in layout.of(lane))
            )
            for lane in layout.lanes
        }
        self._device_sets: dict[str, DeviceSet] = {}
        self._unsettled: dict[str, list[Device]] = {}
        """Outputs whose boards have not confirmed yet that they are safe, by lane."""
        self._unread: set[str] = set()
        """The lanes with a board that nobody can ask what it does."""
        self._again_at: dict[str, int] = {}
        """When unavailable devices are tried again, by lane."""
        self._owners: dict[int, tuple[str, int]] = {}
        """The lane and the process of each pidfd."""
        self._stuck: set[str] = set()
        """The lanes of which was said that their killed owners do not end."""
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        self._poll.register(panel.news, select.POLLIN)
        self._listener = links.listener
        self._stops: StopSocket | None = None
        if links.listener is not None:
            watch, unwatch = self._watch, self._poll.unregister
            may = links.strangers_may
            self._stops = StopSocket(links.listener, panel, links.note, watch, unwatch, strangers_may=may)
            self._poll.register(links.listener, select.POLLIN)
        self._watchdog = (
            HardwareWatchdog(layout.watchdog, layout.watchdog_timeout, links.warn) if layout.watchdog else None
        )
        self._is_over = False
        self._is_orderly = False
        """Whether the supervisor has said that this is the end."""
        self._told: dict[str, str] = {}
        """The reported reason why the pins of a lane are unavailable."""
        self._told_unsafe: dict[str, set[str]] = {}
        """The reported reasons why a device on a board is not safe, since it was so last."""
        for lane, policy in self._policies.items():
            # another guardian may have died with its pins; a living owner keeps its lock
            policy.is_orphan = panel.owner(lane) != NOBODY

    def serve(self) -> None:
        """Watch until the supervisor says stop, or is gone, and every owner is dead; leave every lane safe."""
        self._beat(time.monotonic())
        # for the whole process: threads of buses ask for themselves
        refused = hurry() + keep_memory()
        without = f", without {', '.join(refused)}" if refused else ""
        self._say(f"[GUARDIAN] Watches lane {', '.join(self._policies)}{without}")
        while self._owners or not self._is_over:
            self._beat(time.monotonic())
            self._wait(self._due())
            self._act(time.monotonic_ns())
            if self._stops is not None:
                self._stops.answer(time.monotonic_ns())
            if self._watchdog is not None:
                self._feed(self._watchdog)
            self._bulletin.tell()
        for lane, policy in self._policies.items():
            if policy.is_orphan:
                self._seize(lane)
        self._linger()
        for lane in self._policies:
            self._yield(lane)
        self._bulletin.tell()
        if self._stops is not None:
            self._stops.close()
        if self._watchdog is not None:
            self._watchdog.close(ends=self._is_orderly)

    def _feed(self, watchdog: HardwareWatchdog) -> None:
        """Feed the watchdog while every lane has a living owner of ours."""
        live = (self._has_begun(lane) and not policy.is_killed for lane, policy in self._policies.items())
        watchdog.look(all(live), time.monotonic())
        self._panel.watchdog = watchdog.state

    def _due(self) -> float:
        """Return in how many s to look again at the latest."""
        now, ends = time.monotonic_ns(), self._ends()
        grace = self._lateness.grace(now)
        due: float = min(
            policy.due(ends, now, has_begun=self._has_begun(lane), grace=grace, **self._duties(lane))
            for lane, policy in self._policies.items()
        )
        return due if self._stops is None else min(due, self._stops.due)

    def _ends(self) -> list[int]:
        """Return when leases end; NEVER for an output that is safe already, whose lease may end without an action."""
        ends: list[int] = self._panel.ends.tolist()
        for device in self._outputs:
            if ends[device.place] != NEVER:
                last = self._panel.last(device.place, device.kind.role)
                if last == safe_value(device, last):
                    ends[device.place] = NEVER
        return ends

    def _has_begun(self, lane: str) -> bool:
        """Return whether our owner has the pins."""
        return bool(self._panel.owner(lane) == self._policies[lane].owner)

    def _duties(self, lane: str) -> dict[str, Any]:
        """Return what the owner of a lane has to act on, apart from the ends of leases."""
        panel = self._panel
        is_asked = panel.is_stopped and not panel.has_acted(lane)
        return {"stopped_at": panel.stopped_at if is_asked else None, "beaten": panel.beaten(lane)}

    def _wait(self, timeout: float) -> None:
        wanted = time.monotonic_ns() + int(timeout * NS)
        events = self._poll.poll(1000 * timeout)
        self._excuse(wanted, time.monotonic_ns())
        for fd, _ in events:
            if fd in self._owners:
                self._on_owner_exit(fd)
            elif fd == self._control.fileno():
                self._handle_control()
            elif fd == self._panel.news:
                os.eventfd_read(fd)
            elif self._stops is not None and not self._stops.hear(fd, time.monotonic_ns()):
                self._stops.accept()

    def _watch(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def _excuse(self, wanted: int, now: int) -> None:
        """Excuse all owners if we woke at `now` later than expected."""
        if self._lateness.woke(wanted, now):
            ends = self._ends()
            for lane, policy in self._policies.items():
                policy.excuse(ends, now, **self._duties(lane))

    def _beat(self, now: float) -> None:
        """Report to the supervisor; if it does not read, it is stopped itself, or gone."""
        if now >= self._next_beat:
            self._next_beat = now + self._interval
            self._control.tell_alive()

    def _handle_control(self) -> None:
        try:
            self._control.take_order(self)
        except EOFError:
            self._poll.unregister(self._control.fileno())
            # if anything delays us, this ends us
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LAST_S)
            self._end()

    def let_strangers_stop(self, may: bool) -> None:
        """Let other users than the engine's stop the machine, or not."""
        if self._stops is not None:
            self._stops.strangers_may = may

    def end(self) -> None:
        """Stop the machine, and end as soon as every owner is dead."""
        self._is_orderly = True
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._panel.stop(time.monotonic_ns(), by="supervisor", why="the engine stops")

    def meet(self, lane: str, pid: int) -> None:
        """Watch an owner that was started; it may be dead again."""
        self._policies[lane].begins(pid)
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._forget(lane, pid, "died")
            return
        self._owners[fd] = lane, pid
        self._poll.register(fd, select.POLLIN)

    def _on_owner_exit(self, fd: int) -> None:
        lane, pid = self._owners.pop(fd)
        self._poll.unregister(fd)
        os.close(fd)
        policy = self._policies[lane]
        self._forget(lane, pid, "hung" if policy.is_killed and policy.owner == pid else "died")
        self._stuck.discard(lane)

    def _forget(self, lane: str, pid: int, how: str) -> None:
        """Note that an owner is dead."""
        self._panel.note_exit(lane, pid, time.monotonic_ns(), how)
        if self._panel.wanted_by(lane) == pid:
            self._panel.want(lane, NOBODY)
        self._policies[lane].died(pid)

    def _act(self, now: int) -> None:
        for lane, policy in self._policies.items():
            action = self._action(lane, policy, now)
            # read twice: on a 32-bit machine a number of 8 bytes may be half written
            if action is Action.KILL:
                action = self._action(lane, policy, self._probe(), is_starved=self._is_starved(lane))
            if action is Action.KILL:
                self._kill(lane)
            elif action is Action.SEIZE:
                self._seize(lane)
            elif action is Action.YIELD:
                self._yield(lane)
            elif policy.is_held:
                self._try_again(lane, now)
                self._settle(lane)
                self._confirm(lane, self._panel.number)
            elif policy.is_stuck(now) and lane not in self._stuck:
                self._stuck.add(lane)
                self._warn(
                    f"[GUARDIAN] The owner of lane {lane} [{policy.owner}] was killed, and does not end: the kernel "
                    "has not let go of it, nor of its pins"
                )

    def _probe(self) -> int:
        """Sleep for a moment, to see how late that ends; return the time then."""
        wanted = time.monotonic_ns() + int(PROBE_S * NS)
        time.sleep(PROBE_S)
        now = time.monotonic_ns()
        self._excuse(wanted, now)
        return now

    def _is_starved(self, lane: str) -> bool:
        """Return whether the thread that has to act would act if the machine let it run."""
        return bool(is_starved(self._panel.owner(lane), self._panel.watcher(lane)))

    def _action(self, lane: str, policy: FailoverPolicy, now: int, *, is_starved: bool = False) -> Action | None:
        wanted_by, has_begun = self._panel.wanted_by(lane), self._has_begun(lane)
        grace = MAX_GRACE_S if is_starved else self._lateness.grace(now)
        return policy.next(
            self._ends(), now, wanted_by=wanted_by, has_begun=has_begun, grace=grace, **self._duties(lane)
        )

    def _kill(self, lane: str) -> None:
        """Kill an owner that hangs. The kernel tells when it has ended; other lanes do not wait for that."""
        for fd, owner in list(self._owners.items()):
            if owner == (lane, self._policies[lane].owner):
                self._warn(
                    f"[GUARDIAN] The owner of lane {lane} [{owner[1]}] did not act on a lease or a stop: killing it"
                )
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                self._policies[lane].killed(time.monotonic_ns())

    def _seize(self, lane: str) -> None:
        """Claim the pins of a dead owner and make them safe, unless another process has taken them over."""
        if not self._panel.take(lane):
            self._policies[lane].taken_over()
            return
        outputs = [device for device in self._layout.of(lane) if device.kind.is_output]
        number = self._panel.number
        try:
            device_set = self._device_sets[lane] = DeviceSet(
                outputs, factory_of(self._pins, self._layout, outputs), self._safe
            )
        except (RuntimeError, OSError, SettingsError) as error:
            self._panel.give(lane)
            self._policies[lane].failed(time.monotonic_ns())
            if str(error) != self._told.get(lane):
                self._told[lane] = str(error)
                self._warn(f"[GUARDIAN] The pins of lane {lane} cannot be had: {error}")
            return
        for name, reason in device_set.failed.items():
            self._warn(f"[GUARDIAN] Not made safe: {name}: {reason}")
        on_boards = [device for device in self._on_boards if device.lane == lane]
        # `_confirm` looks after those that could not be opened: their boards know nothing of them
        self._unsettled[lane] = [device for device in on_boards if device.name not in device_set.failed]
        for device in outputs:
            if device.name not in device_set.failed and not device.boards:
                self._note_safe(device)
            self._panel.ends[device.place] = NEVER
        self._confirm(lane, number)
        self._policies[lane].seized()
        if device_set.lines_failure:
            self._warn(f"[GUARDIAN] The pins of lane {lane} cannot be had: {device_set.lines_failure}")
            return
        boards = ", but for boards" if self._unsettled[lane] else ""
        self._warn(f"[GUARDIAN] Lane {lane} is safe{boards}, its owner is dead")

    def _note_safe(self, device: Device) -> None:
        """Note that an output has its safe value."""
        value, now = self._safe(device), time.monotonic_ns()
        self._panel.note(device.place, value, -now)
        self._bulletin.made_safe(device, value, now / NS)

    def _settle(self, lane: str) -> None:
        """Note which outputs on boards are safe, and which ones are not, or not any more."""
        now, device_set, unsettled = time.monotonic(), self._device_sets[lane], self._unsettled[lane]
        for device in self._on_boards:
            if device.lane != lane or device.name in device_set.failed:
                continue
            reports = [board.look(now) for board in device_set.boards_of(device)]
            is_read = all(report.reads_back for report in reports)
            if all(report.is_ready for report in reports):
                if device in unsettled:
                    unsettled.remove(device)
                    self._told_unsafe.pop(device.name, None)
                    if not all(board.keeps(device.name) for board in device_set.boards_of(device)):
                        # its supply was gone: the next owner is not to move it to where it was
                        self._panel.note(device.place, safe_value(device, None))
                    self._note_safe(device)
                    told = "is safe, on its board" if is_read else "was told to be safe; its board cannot be read back"
                    self._warn(f"[GUARDIAN] {device.name} {told}")
                if not is_read:
                    self._unread.add(lane)
                continue
            if device not in unsettled:
                unsettled.append(device)
            reason = next((report.fault for report in reports if not report.is_ready), "")
            told_before = self._told_unsafe.setdefault(device.name, {NOT_YET})
            if reason not in told_before and len(told_before) <= MAX_REASONS:
                told_before.add(reason)
                self._warn(f"[GUARDIAN] {device.name} is not safe yet: {reason}")

    def _linger(self) -> None:
        """Wait a moment for boards, with all pins safe."""
        end = time.monotonic() + BOARDS_S
        while any(self._unsettled.values()) and time.monotonic() < end:
            time.sleep(HOLD_S)
            for lane in self._device_sets:
                self._settle(lane)
                self._confirm(lane, self._panel.number)

    def _confirm(self, lane: str, number: int) -> None:
        """Confirm that a lane is safe, unless an output that its owner drove could not be had, or is not safe yet."""
        self._panel.act(lane, number)
        if self._unsettled[lane]:
            return
        failed = self._device_sets[lane].failed
        if all(self._last(device) == self._safe(device) for device in self._outputs if device.name in failed):
            self._panel.confirm(lane, number, is_read=lane not in self._unread)

    def _try_again(self, lane: str, now: int) -> None:
        """Make unavailable devices safe that can be had now."""
        device_set = self._device_sets[lane]
        if device_set.failed and now >= self._again_at.get(lane, 0):
            # as soon as where there are no boards, which have been told meanwhile
            self._again_at[lane] = now + int((RETRY_S if device_set.lines_failure else AGAIN_S) * NS)
            for device in [device for device in self._layout.of(lane) if device.name in device_set.failed]:
                if not device_set.again(device):
                    continue
                if device.boards:
                    self._unsettled[lane].append(device)
                else:
                    self._note_safe(device)
                    self._warn(f"[GUARDIAN] Made safe at last: {device.name}")

    def _last(self, device: Device) -> Value:
        return self._panel.last(device.place, device.kind.role)

    def _safe(self, device: Device) -> Value:
        return safe_value(device, self._last(device))

    def _yield(self, lane: str) -> None:
        """Let the next owner have the pins."""
        device_set = self._device_sets.pop(lane, None)
        if device_set is not None:
            device_set.let_go()
            self._panel.give(lane)
            device_set.close()
        self._policies[lane].yielded()


def main(layout: HardwareConfig, panel: SharedState, pins: str, links: Links) -> None:
    """Run the guardian's process."""
    warm_up(pins, layout)
    warm_up_boards(layout, pins)
    links.control.tell_online()
    Guardian(layout, panel, pins, links).serve()
