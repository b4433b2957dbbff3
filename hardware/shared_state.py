"""The memory that a machine's processes share, which outlives each of them, and a lock for each lane.

The owner of a lane writes when its leases end, and the values of its outputs; the guardian reads that when the owner is
dead or hangs. Only the process that holds a lane's lock has its pins. It is a record lock, which the kernel takes back
from a process that dies (fcntl(2), F_SETLK), so that a dead process never holds it.

Stops are numbered. The machine is stopped while the latest number is above the last one that was armed. Each stop has a
number of its own, even if the machine is stopped already, and an arm names the number that it undoes. So no client
undoes a stop that it has not heard of. A stop is recognized by an id: a repetition is not another stop. One process at
a time gives numbers, by a record lock. A process must not wait for one that is suspended with that lock, so it goes on
without the lock after a moment; and a stop that is already armed when it has been written takes the next number.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from .consents import CONSENTS, ID_BYTES, Consents, digest
from .consents import WORDS as CONSENT_WORDS
from .device_config import CHANNELS, LATCH, HardwareConfig, Value, channels
from .device_types import Role
from .lane_notes import NOTE_BYTES, WORDS, LaneNote, LaneNotes
from .watchdog import WatchdogState

NEVER = 0
"""The end of a lease that does not run."""
NOBODY = 0
"""No process."""
IDS = 64
"""The ids of how many last stops are kept."""
TEXT_BYTES = 240
"""The most bytes of a stop's origin and reason."""
GUARDIAN = "guardian"
"""The origin of a stop after the failure of an owner."""
PATIENCE_S = 0.01
"""How long, in s, a stop waits at most for another one that is being written,"""
LOOK_S = 0.0001
"""and how often it checks meanwhile."""


class _Word:
    """The places of numbers of 8 bytes for the whole machine,"""

    NUMBER, STOPPED_AT, ARMED, ARMED_AT, CLEARED_AT, NEXT_ID, WATCHDOG, COUNT = range(8)


class _Lane:
    """for each lane,"""

    HEARD, WANTED, OWNER, WATCHER, GONE, BEAT, GENERATION, FAULTS, FAULT_AT, REFUSED, ACTED, TOLD = range(12)
    COUNT = 12


class _Device:
    """and for each device."""

    END, REST_ORDER, REST_POSITION, TOLD_AT, COUNT = range(5)


class StopRecord(NamedTuple):
    """The latest stop: its number, 0 without one, when (ns), by whom and why, and whether it is in force."""

    number: int
    at: int
    by: str
    why: str
    is_in_force: bool


class LaneState(NamedTuple):
    """A lane: the last process that had its pins, how many owners it had, and how many of them died or were killed.

    `refused` counts commands that came too late.
    """

    owner: int
    generation: int
    faults: int
    refused: int


class SharedState:
    """The memory. Times are in ns, CLOCK_MONOTONIC, which is the same for all processes."""

    def __init__(self, layout: HardwareConfig) -> None:
        self._lanes = {lane: number for number, lane in enumerate(layout.lanes)}
        self._latching = {device.lane for device in layout.devices.values() if device.on_fault == LATCH}
        self.ramp_s = layout.longest_stop
        """How much longer, in s, a stop may take because outputs ramp down."""
        self._has_watchdog = bool(layout.watchdog)
        # while nobody reads a stop input, nothing may move
        self.stop_lanes = tuple(lane for lane in layout.lanes if layout.stops_by_input(lane))
        """The lanes with an input that can stop the machine."""
        self._latching.update(self.stop_lanes)
        lanes, devices = len(self._lanes), len(layout.devices)
        sizes = [_Word.COUNT, _Lane.COUNT * lanes, _Device.COUNT * devices, IDS, CONSENT_WORDS * lanes, WORDS * lanes]
        words = sum(sizes)
        size = 8 * (words + CHANNELS * devices) + ID_BYTES * (IDS + CONSENTS * lanes + 1) + 2 * TEXT_BYTES
        size += NOTE_BYTES * lanes
        self._fd = os.memfd_create("taskengine-panel")
        os.ftruncate(self._fd, size)
        self._mutex = threading.Lock()
        view = memoryview(mmap.mmap(self._fd, size))
        numbers = view[: 8 * words].cast("q")
        parts, at = [], 0
        for length in sizes:
            parts.append(numbers[at : at + length])
            at += length
        self._words, lane_words, device_words, self._id_numbers, consents, notes = parts
        self.numbers = self._words[: _Word.NUMBER + 1]
        """The number of the latest stop, for frequent reading."""
        self._of_lanes = [lane_words[lanes * column :][:lanes] for column in range(_Lane.COUNT)]
        columns = [device_words[devices * column :][:devices] for column in range(_Device.COUNT)]
        self.ends, self.rest_orders, self._rest_positions, self.told_at = columns
        rest = view[8 * words :]
        self.values = rest[: 8 * CHANNELS * devices].cast("d")
        rest = rest[8 * CHANNELS * devices :]
        self._ids, rest = rest[: IDS * ID_BYTES], rest[IDS * ID_BYTES :]
        self.consents = Consents(self._lanes, consents, rest)
        """Who has consented to motion in each lane since the machine was armed."""
        rest = rest[CONSENTS * lanes * ID_BYTES :]
        self._armed_by, rest = rest[:ID_BYTES], rest[ID_BYTES:]
        self._by, self._why, rest = rest[:TEXT_BYTES], rest[TEXT_BYTES:][:TEXT_BYTES], rest[2 * TEXT_BYTES :]
        self.notes = LaneNotes(self._lanes, notes, rest)
        """The rules that hold in each lane."""
        for place in range(len(self.values)):
            self.values[place] = math.nan
        self._bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in self._lanes]
        self.news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when the guardian is to look: the machine was stopped or armed, or a lane has another owner."""
        self.close = weakref.finalize(self, _close, [self._fd, self.news, *self._bells])
        """Closes its descriptors here, as the end of the last reference does. May be called twice."""

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that have to stay open in a process that uses it."""
        return [self._fd, *self._bells, self.news]

    # Stops -----------------------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """The number of the latest stop, 0 without one."""
        return self._words[_Word.NUMBER]

    @property
    def armed(self) -> int:
        """The number of the stop that was undone last, 0 for none."""
        return self._words[_Word.ARMED]

    @property
    def is_stopped(self) -> bool:
        """Whether the machine is stopped."""
        return self.number > self.armed

    @property
    def stopped_at(self) -> int:
        """When it was stopped last, 0 for never."""
        return self._words[_Word.STOPPED_AT]

    @property
    def armed_at(self) -> int:
        """When it was armed last, 0 for never."""
        return self._words[_Word.ARMED_AT]

    def stop(self, now: int, *, by: str = "", why: str = "", id: bytes = b"") -> int:
        """Stop the machine, and wake the owners; return the number of the stop.

        A repeated `id` is not another stop, even if the first one was armed since.
        """
        with self._counting():
            number = self._known(id) if id else 0
            if not number:
                number = self._count_stop(now, id)
                _put_text(self._by, by)
                _put_text(self._why, why)
        self._ring_all()
        return number

    def _count_stop(self, now: int, id: bytes) -> int:
        # the time first: a process that sees the number uses the time
        self._words[_Word.STOPPED_AT] = max(now, self.stopped_at)
        number = self._words[_Word.NUMBER] = self.number + 1
        while self.armed >= number:  # by a process that did not wait for us
            number = self._words[_Word.NUMBER] = self.armed + 1
        if id:
            place = self._words[_Word.NEXT_ID] % IDS
            self._words[_Word.NEXT_ID] = place + 1
            self._ids[ID_BYTES * place :][:ID_BYTES] = digest(id)
            self._id_numbers[place] = number
        return number

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Be the only one that gives or undoes a stop's number, or go on after waiting long enough."""
        end = time.monotonic() + PATIENCE_S
        has_mutex = self._mutex.acquire(timeout=PATIENCE_S)
        # a record lock belongs to the whole process: without the mutex two threads would both have it
        has_lock = has_mutex and self._lock(len(self._lanes))
        while has_mutex and not has_lock and time.monotonic() < end:
            time.sleep(LOOK_S)  # to yield would leave the processor to real-time threads alone
            has_lock = self._lock(len(self._lanes))
        try:
            yield
        finally:
            if has_lock:
                self._unlock(len(self._lanes))
            if has_mutex:
                self._mutex.release()

    def knows(self, id: bytes) -> bool:
        """Return whether a stop of this id has come."""
        return self._known(id) > 0

    def _known(self, id: bytes) -> int:
        """Return the number of the stop of this id, 0 if it is new."""
        sought = digest(id)
        for place in range(IDS):
            if self._id_numbers[place] and self._ids[ID_BYTES * place :][:ID_BYTES] == sought:
                return self._id_numbers[place]
        return 0

    def arm(self, number: int, holder: bytes, now: int) -> bool:
        """Undo the stop `number` if it is the latest, and wake the owners; return whether it was.

        `holder` is the client that armed (`Origin.holder`).
        """
        with self._counting():
            if number != self.number:
                return False
            self._words[_Word.CLEARED_AT] = now
            if self.is_stopped:
                self._armed_by[:] = digest(holder)
                self._words[_Word.ARMED_AT] = now
                self._words[_Word.ARMED] = number
        self._ring_all()
        return True

    def has_armed(self, holder: bytes) -> bool:
        """Return whether this holder has armed the machine last."""
        return self.armed > 0 and self._armed_by == digest(holder)

    def latest(self) -> StopRecord:
        """Return the latest stop."""
        return StopRecord(self.number, self.stopped_at, _text(self._by), _text(self._why), self.is_stopped)

    def act(self, lane: str, number: int) -> None:
        """Note that the lane has acted on this stop: its pins are safe, its boards are about to be."""
        self._set(lane, _Lane.ACTED, number)

    def has_acted(self, lane: str) -> bool:
        """Return whether the lane has acted on the latest stop."""
        return self._get(lane, _Lane.ACTED) >= self.number

    def confirm(self, lane: str, number: int, *, is_read: bool = True) -> None:
        """Confirm that the lane is in its safe state for this stop; called by its owner, or the guardian.

        Without `is_read` it was told to be, and nobody can ask its boards: the machine may be armed, and the stop is
        not confirmed.
        """
        self._set(lane, _Lane.ACTED, number)
        self._set(lane, _Lane.TOLD, number)
        if is_read:
            self._set(lane, _Lane.HEARD, number)

    def untold(self) -> list[str]:
        """Return the lanes that have not told all of their outputs the latest stop, as far as they know."""
        return [lane for lane in self._lanes if self._get(lane, _Lane.TOLD) < self.number]

    def unconfirmed(self) -> list[str]:
        """Return the lanes without a confirmation of the latest stop."""
        return [lane for lane in self._lanes if self._get(lane, _Lane.HEARD) < self.number]

    # Devices ---------------------------------------------------------------------------------------------------------

    def rest(self, lane: str, place: int, order: int, position: int) -> None:
        """Ask the lane's owner to bring a device to rest.

        Commands of an earlier package than `order`, or at an earlier `position` of that one, move it no more.
        """
        if (order, position) > self.rested(place):
            # in this order: a half-written entry holds back too much, not too little
            self.rest_orders[place] = order
            self._rest_positions[place] = position
        self.ring(lane)

    def rested(self, place: int) -> tuple[int, int]:
        """Return the order and the position of the last such call for a device; zeros without one."""
        return self.rest_orders[place], self._rest_positions[place]

    def note(self, place: int, value: Value, now: int = 0) -> None:
        """Note an output's value, written at `now`; the guardian passes `-now`."""
        first = CHANNELS * place
        if isinstance(value, tuple):
            for channel, number in enumerate(value, first):
                self.values[channel] = number
        else:
            self.values[first] = math.nan if value is None else value
        if now:
            self.told_at[place] = now

    def told(self, place: int) -> tuple[int, bool]:
        """Return when an output was written last, 0 for never, and whether the guardian did that."""
        at = self.told_at[place]
        return abs(at), at < 0

    def last(self, place: int, role: Role) -> Value:
        """Return the last value of an output; None for nothing."""
        first, count = CHANNELS * place, channels(role)
        told = self.values[first : first + count].tolist()
        if any(map(math.isnan, told)):
            return None
        if count > 1:
            return tuple(told)
        return bool(told[0]) if role is Role.SWITCH else float(told[0])

    # Lanes -----------------------------------------------------------------------------------------------------------

    def begin(self, lane: str, owner: int) -> None:
        """Note that a process has the lane's pins, and that they are safe. The lock is held."""
        self.note_exit(lane, self.owner(lane), time.monotonic_ns(), "died")
        self._set(lane, _Lane.OWNER, owner)
        self._set(lane, _Lane.GONE, NOBODY)
        self._set(lane, _Lane.GENERATION, self._get(lane, _Lane.GENERATION) + 1)
        os.eventfd_write(self.news, 1)

    def note_exit(self, lane: str, owner: int, now: int, how: str) -> bool:
        """Note that a process that may have had the lane's pins is dead; return whether it had not released them.

        Such a fault counts once, and stops the machine if a device of the lane says so. The guardian calls this, or the
        next owner if that is faster.
        """
        with self._counting():
            if owner != self.owner(lane) or not self.has_owner(lane):
                return False
            self._set(lane, _Lane.GONE, owner)
            self._set(lane, _Lane.FAULTS, self._get(lane, _Lane.FAULTS) + 1)
            self._set(lane, _Lane.FAULT_AT, now)
        if lane in self._latching:
            self.stop(now, by=GUARDIAN, why=f"the owner of lane {lane} {how}")
        os.eventfd_write(self.news, 1)
        return True

    def owner(self, lane: str) -> int:
        """Return the process that had the lane's pins last; NOBODY before the first one."""
        return self._get(lane, _Lane.OWNER)

    def has_owner(self, lane: str) -> bool:
        """Return whether a process has the lane's pins, as far as is known."""
        return self.owner(lane) not in (NOBODY, self._get(lane, _Lane.GONE))

    def has_fault(self, lane: str) -> bool:
        """Return whether a process that had the lane's pins has died since somebody last called for an arm."""
        return self._get(lane, _Lane.FAULT_AT) > self._words[_Word.CLEARED_AT]

    def write_note(self, lane: str, note: LaneNote) -> None:
        """Write the note of a lane, and have it published if it is another one; called by its owner."""
        if self.notes.write(lane, note):
            os.eventfd_write(self.news, 1)

    def refuse(self, lane: str) -> None:
        """Count a command that came too late."""
        self._set(lane, _Lane.REFUSED, self._get(lane, _Lane.REFUSED) + 1)

    def state(self, lane: str) -> LaneState:
        """Return the state of the lane."""
        columns = (_Lane.OWNER, _Lane.GENERATION, _Lane.FAULTS, _Lane.REFUSED)
        return LaneState(*(self._get(lane, column) for column in columns))

    def report(self) -> dict[str, Any]:
        """Return the state of the machine.

        Whether it is armed (else by whom, why and since when), the rules that hold, the reasons against arming, and
        each lane's state.
        """
        latest, notes = self.latest(), self.notes.all()
        watchdog = {"watchdog": self.watchdog.name.lower()} if self._has_watchdog else {}
        return {
            "armed": not latest.is_in_force,
            "stop": latest.number,
            "by": latest.by,
            "why": latest.why,
            "since": (latest.at if latest.is_in_force else self.armed_at) / 1e9,
            "rules": notes.rules,
            "reasons": notes.reasons,
            "lanes": {lane: self.state(lane)._asdict() for lane in self._lanes},
            **watchdog,
        }

    @property
    def watchdog(self) -> WatchdogState:
        """The state of the hardware watchdog; the guardian sets it."""
        return WatchdogState(self._words[_Word.WATCHDOG])

    @watchdog.setter
    def watchdog(self, state: WatchdogState) -> None:
        self._words[_Word.WATCHDOG] = state

    def watch(self, lane: str, thread: int) -> None:
        """Note the thread of the owner, by the kernel's number, that acts on leases and stops."""
        self._set(lane, _Lane.WATCHER, thread)

    def watcher(self, lane: str) -> int:
        """Return the thread of the lane's owner that acts on leases and stops."""
        return self._get(lane, _Lane.WATCHER)

    def beat(self, lane: str, now: int) -> None:
        """Note that the owner lives while it makes pulses without a lease; NEVER ends the beats."""
        self._set(lane, _Lane.BEAT, now)

    def beaten(self, lane: str) -> int:
        """Return the owner's last beat, NEVER if it need not beat."""
        return self._get(lane, _Lane.BEAT)

    def want(self, lane: str, owner: int) -> None:
        """Note the process that waits for the lane's pins, or NOBODY."""
        self._set(lane, _Lane.WANTED, owner)

    def wanted_by(self, lane: str) -> int:
        """Return the process that waits for the lane's pins, or NOBODY."""
        return self._get(lane, _Lane.WANTED)

    def bell(self, lane: str) -> int:
        """Return the descriptor that becomes readable when the lane's owner is to look (eventfd(2))."""
        return self._bells[self._lanes[lane]]

    def ring(self, lane: str) -> None:
        """Have the lane's owner look."""
        os.eventfd_write(self.bell(lane), 1)

    def _ring_all(self) -> None:
        for lane in self._lanes:
            self.ring(lane)
        os.eventfd_write(self.news, 1)

    def take(self, lane: str) -> bool:
        """Take the lane's lock if it is free; return whether it was."""
        return self._lock(self._lanes[lane])

    def give(self, lane: str) -> None:
        """Release the lane's lock, after an owner has released the pins."""
        if self.owner(lane) == os.getpid():
            self._set(lane, _Lane.GONE, os.getpid())
        self._unlock(self._lanes[lane])

    def _lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _unlock(self, place: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, place)

    def _get(self, lane: str, column: int) -> int:
        return self._of_lanes[column][self._lanes[lane]]

    def _set(self, lane: str, column: int, number: int) -> None:
        self._of_lanes[column][self._lanes[lane]] = number


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _put_text(room: memoryview, text: str) -> None:
    data = text.encode(errors="replace")[:TEXT_BYTES]
    room[:] = data.ljust(TEXT_BYTES, b"\0")


def _text(room: Iterable[int]) -> str:
    # truncated text may end in half a letter
    return bytes(room).rstrip(b"\0").decode(errors="ignore")
