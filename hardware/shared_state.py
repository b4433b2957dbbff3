"""What the processes that have to do with a machine share: memory that outlives each of them, and a lock a lane.

The owner of a lane writes when its leases end and what its outputs were told; the guardian reads that once the owner is
dead or hangs. Whoever holds a lane's lock, and nobody else, has its pins. It is a record lock, which the kernel takes
back from a process that dies (fcntl(2), F_SETLK), so that it can never be held by nobody.

Stops are numbered. The machine is stopped while the latest number is above the one that was armed last. Each stop has a
number of its own, also where the machine is stopped already, and an arm names the number that it undoes, so that none
undoes a stop that its sender has not heard of. A stop is known by an id: repeated, it is not another one. One process
at a time gives numbers, by a record lock; since nobody may wait for a process that stands still with it, others go on
without it after a moment, and a stop that finds itself armed as soon as it is written takes the next number.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from .device_config import CHANNELS, LATCH, HardwareConfig, Value, channels
from .device_types import Role

NEVER = 0
"""The end of a lease that does not run."""
NOBODY = 0
"""The process that there is not."""
IDS = 64
"""How many of the last stops are known by their ids."""
ID_BYTES = 16
CONSENTS = 64
"""How many consents to motion of a lane outlive its owner."""
TEXT_BYTES = 240
"""What may be said of a stop: by whom, and why."""
GUARDIAN = "guardian"
"""Who stops the machine where an owner has failed."""
PATIENCE_S = 0.01
"""How long a stop waits for one that is being written at most."""


class _Word:
    """The places of numbers of 8 bytes that are of the whole machine."""

    NUMBER, STOPPED_AT, ARMED, ARMED_AT, NEXT_ID, COUNT = range(6)


class _Lane:
    """And those of each lane."""

    HEARD, WANTED, OWNER, WATCHER, GONE, BEAT, GENERATION, FAULTS, REFUSED, CONSENTED, COUNT = range(11)


class _Device:
    """And those of each device."""

    END, REST_ORDER, REST_POSITION, TOLD_AT, COUNT = range(5)


class StopRecord(NamedTuple):
    """The latest stop: its number, 0 where there was none, when it was (ns), by whom and why, and if it is in force."""

    number: int
    at: int
    by: str
    why: str
    is_in_force: bool


class LaneState(NamedTuple):
    """A lane: the process that had its pins last, how many owners it had, and how many of them died or were ended.

    `refused` counts commands that came too late.
    """

    owner: int
    generation: int
    faults: int
    refused: int


class SharedState:
    """The memory. Times in ns, CLOCK_MONOTONIC, which is the same for all processes."""

    def __init__(self, layout: HardwareConfig) -> None:
        self._lanes = {lane: number for number, lane in enumerate(layout.lanes)}
        self._latching = {device.lane for device in layout.devices.values() if device.on_fault == LATCH}
        lanes, devices = len(self._lanes), len(layout.devices)
        sizes = [_Word.COUNT, _Lane.COUNT * lanes, _Device.COUNT * devices, IDS, CONSENTS * lanes]
        words = sum(sizes)
        size = 8 * (words + CHANNELS * devices) + ID_BYTES * (IDS + CONSENTS * lanes + 1) + 2 * TEXT_BYTES
        self._fd = os.memfd_create("taskengine-panel")
        os.ftruncate(self._fd, size)
        self._mutex = threading.Lock()
        view = memoryview(mmap.mmap(self._fd, size))
        numbers = view[: 8 * words].cast("q")
        parts, at = [], 0
        for length in sizes:
            parts.append(numbers[at : at + length])
            at += length
        self._words, lane_words, device_words, self._id_numbers, self._consent_numbers = parts
        self.numbers = self._words[: _Word.NUMBER + 1]
        """The number of the latest stop, for whoever looks often."""
        self._of_lanes = [lane_words[lanes * column :][:lanes] for column in range(_Lane.COUNT)]
        columns = [device_words[devices * column :][:devices] for column in range(_Device.COUNT)]
        self.ends, self.rest_orders, self._rest_positions, self.told_at = columns
        rest = view[8 * words :]
        self.values = rest[: 8 * CHANNELS * devices].cast("d")
        rest = rest[8 * CHANNELS * devices :]
        self._ids, rest = rest[: IDS * ID_BYTES], rest[IDS * ID_BYTES :]
        self._consents, rest = rest[: CONSENTS * lanes * ID_BYTES], rest[CONSENTS * lanes * ID_BYTES :]
        self._armed_by, rest = rest[:ID_BYTES], rest[ID_BYTES:]
        self._by, self._why = rest[:TEXT_BYTES], rest[TEXT_BYTES:]
        for place in range(len(self.values)):
            self.values[place] = math.nan
        self._bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in self._lanes]
        self.news = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when the guardian is to look: something is stopped, armed, or another process owns a lane."""
        self.close = weakref.finalize(self, _close, [self._fd, self.news, *self._bells])
        """Closes its descriptors here, as the end of the last reference does. May be called twice."""

    @property
    def descriptors(self) -> list[int]:
        """What has to stay open in a process that uses it."""
        return [self._fd, *self._bells, self.news]

    # Stops -----------------------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """The number of the latest stop, 0 where there was none."""
        return self._words[_Word.NUMBER]

    @property
    def armed(self) -> int:
        """The number of the stop that was undone last, 0 where none was."""
        return self._words[_Word.ARMED]

    @property
    def is_stopped(self) -> bool:
        """Nothing is to move."""
        return self.number > self.armed

    @property
    def stopped_at(self) -> int:
        """When it was stopped last, 0 where it was not."""
        return self._words[_Word.STOPPED_AT]

    @property
    def armed_at(self) -> int:
        """When it was armed last, 0 where it was not."""
        return self._words[_Word.ARMED_AT]

    def stop(self, now: int, *, by: str = "", why: str = "", id: bytes = b"") -> int:
        """From here on nothing is to move; the owners are told. The number of the stop.

        One that has come before, by its `id`, is not another stop, also where it was armed since.
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
        # the time first: whoever sees the number goes by it
        self._words[_Word.STOPPED_AT] = max(now, self.stopped_at)
        number = self._words[_Word.NUMBER] = self.number + 1
        while self.armed >= number:  # by whoever did not wait for us
            number = self._words[_Word.NUMBER] = self.armed + 1
        if id:
            place = self._words[_Word.NEXT_ID] % IDS
            self._words[_Word.NEXT_ID] = place + 1
            self._ids[ID_BYTES * place :][:ID_BYTES] = _digest(id)
            self._id_numbers[place] = number
        return number

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Be the only one that gives or undoes a number of a stop, or have waited long enough for that."""
        end = time.monotonic() + PATIENCE_S
        has_mutex = self._mutex.acquire(timeout=PATIENCE_S)
        # a process has a record lock as a whole: a thread without the mutex would only take it from another
        has_lock = has_mutex and self._lock(len(self._lanes))
        while has_mutex and not has_lock and time.monotonic() < end:
            os.sched_yield()
            has_lock = self._lock(len(self._lanes))
        try:
            yield
        finally:
            if has_lock:
                self._unlock(len(self._lanes))
            if has_mutex:
                self._mutex.release()

    def knows(self, id: bytes) -> bool:
        """A stop of this id has come."""
        return self._known(id) > 0

    def _known(self, id: bytes) -> int:
        """Return the number of the stop of this id, 0 where it is new."""
        digest = _digest(id)
        for place in range(IDS):
            if self._id_numbers[place] and self._ids[ID_BYTES * place :][:ID_BYTES] == digest:
                return self._id_numbers[place]
        return 0

    def arm(self, number: int, holder: bytes, now: int) -> bool:
        """From here on things may move, if `number` is the latest stop's; the owners are told. False where it is not.

        `holder` is who armed (`Origin.holder`).
        """
        with self._counting():
            if number != self.number:
                return False
            if self.is_stopped:
                self._armed_by[:] = _digest(holder)
                self._words[_Word.ARMED_AT] = now
                self._words[_Word.ARMED] = number
        self._ring_all()
        return True

    def has_armed(self, holder: bytes) -> bool:
        """It was this holder who armed the machine last."""
        return self.armed > 0 and self._armed_by == _digest(holder)

    def consent(self, lane: str, holder: bytes) -> None:
        """A holder has said, since the machine was armed, that it wants to move things in a lane; its owner calls this.

        That outlives the owner, and ends with the next stop.
        """
        place = CONSENTS * self._lanes[lane] + self._get(lane, _Lane.CONSENTED) % CONSENTS
        # the number last: until then it is nobody's
        self._consent_numbers[place] = 0
        self._consents[ID_BYTES * place :][:ID_BYTES] = _digest(holder)
        self._consent_numbers[place] = self.armed
        self._set(lane, _Lane.CONSENTED, self._get(lane, _Lane.CONSENTED) + 1)

    def has_consented(self, lane: str, holder: bytes) -> bool:
        """It has, if it is one of the last that did."""
        digest, first, armed = _digest(holder), CONSENTS * self._lanes[lane], self.armed
        return armed > 0 and any(
            self._consent_numbers[place] == armed and self._consents[ID_BYTES * place :][:ID_BYTES] == digest
            for place in range(first, first + CONSENTS)
        )

    def latest(self) -> StopRecord:
        """Return the latest stop."""
        return StopRecord(self.number, self.stopped_at, _text(self._by), _text(self._why), self.is_stopped)

    def confirm(self, lane: str, number: int) -> None:
        """The lane's owner, or the guardian, has brought it to its safe state for the stop of this number."""
        self._set(lane, _Lane.HEARD, number)

    def unconfirmed(self) -> list[str]:
        """Return the lanes where nobody has, of the latest stop."""
        return [lane for lane in self._lanes if self._get(lane, _Lane.HEARD) < self.number]

    # Devices ---------------------------------------------------------------------------------------------------------

    def rest(self, lane: str, place: int, order: int, position: int) -> None:
        """Whoever may use the device wants it safe: commands of an earlier package than `order`, or at an earlier
        position of that one, are not to move it any more. The owner is told."""
        if (order, position) > self.rested(place):
            # in this order: what is half written holds back too much, not too little
            self.rest_orders[place] = order
            self._rest_positions[place] = position
        self.ring(lane)

    def rested(self, place: int) -> tuple[int, int]:
        """Return the order and the position of the last such call for a device; zeros where there was none."""
        return self.rest_orders[place], self._rest_positions[place]

    def note(self, place: int, value: Value, now: int = 0) -> None:
        """An output was told this, at `now`; below 0 for the guardian, who told it at `-now`."""
        first = CHANNELS * place
        if isinstance(value, tuple):
            for channel, number in enumerate(value, first):
                self.values[channel] = number
        else:
            self.values[first] = math.nan if value is None else value
        if now:
            self.told_at[place] = now

    def told(self, place: int) -> tuple[int, bool]:
        """Return when an output was told something last, 0 for never, and whether the guardian did that."""
        at = self.told_at[place]
        return abs(at), at < 0

    def last(self, place: int, role: Role) -> Value:
        """What an output was told last; None for nothing."""
        first, count = CHANNELS * place, channels(role)
        told = self.values[first : first + count].tolist()
        if any(map(math.isnan, told)):
            return None
        if count > 1:
            return tuple(told)
        return bool(told[0]) if role is Role.SWITCH else float(told[0])

    # Lanes -----------------------------------------------------------------------------------------------------------

    def begin(self, lane: str, owner: int) -> None:
        """A process has the lane's pins, and they are safe. The lock is held."""
        self.bury(lane, self.owner(lane), time.monotonic_ns(), "died")
        self._set(lane, _Lane.OWNER, owner)
        self._set(lane, _Lane.GONE, NOBODY)
        self._set(lane, _Lane.GENERATION, self._get(lane, _Lane.GENERATION) + 1)
        os.eventfd_write(self.news, 1)

    def bury(self, lane: str, owner: int, now: int, how: str) -> bool:
        """A process that may have had the lane's pins is dead; whether it had not let go of them.

        That is a fault, which counts once, and stops the machine where a device of the lane says so. The guardian does
        this, or the next owner where that is faster.
        """
        with self._counting():
            if owner in (NOBODY, self._get(lane, _Lane.GONE)) or owner != self.owner(lane):
                return False
            self._set(lane, _Lane.GONE, owner)
            self._set(lane, _Lane.FAULTS, self._get(lane, _Lane.FAULTS) + 1)
        if lane in self._latching:
            self.stop(now, by=GUARDIAN, why=f"the owner of lane {lane} {how}")
        os.eventfd_write(self.news, 1)
        return True

    def owner(self, lane: str) -> int:
        """Return the process that had the lane's pins last; NOBODY before the first one."""
        return self._get(lane, _Lane.OWNER)

    def refuse(self, lane: str) -> None:
        """A command came too late."""
        self._set(lane, _Lane.REFUSED, self._get(lane, _Lane.REFUSED) + 1)

    def state(self, lane: str) -> LaneState:
        """Return how the lane is."""
        columns = (_Lane.OWNER, _Lane.GENERATION, _Lane.FAULTS, _Lane.REFUSED)
        return LaneState(*(self._get(lane, column) for column in columns))

    def report(self) -> dict[str, Any]:
        """What is said of the whole machine: whether it is armed, by whom, why and since when (monotonic s) it is not,
        and how each lane is."""
        latest = self.latest()
        return {
            "armed": not latest.is_in_force,
            "stop": latest.number,
            "by": latest.by,
            "why": latest.why,
            "since": (latest.at if latest.is_in_force else self.armed_at) / 1e9,
            "lanes": {lane: self.state(lane)._asdict() for lane in self._lanes},
        }

    def watch(self, lane: str, thread: int) -> None:
        """This thread of the owner, by the kernel's number, acts on leases and stops."""
        self._set(lane, _Lane.WATCHER, thread)

    def watcher(self, lane: str) -> int:
        """Return the thread of the lane's owner that acts on leases and stops."""
        return self._get(lane, _Lane.WATCHER)

    def beat(self, lane: str, now: int) -> None:
        """The owner lives, while it makes pulses that nobody has a lease of; NEVER where it does not."""
        self._set(lane, _Lane.BEAT, now)

    def beaten(self, lane: str) -> int:
        """Return when it did last, NEVER where it need not."""
        return self._get(lane, _Lane.BEAT)

    def want(self, lane: str, owner: int) -> None:
        """A process waits for the lane's pins; NOBODY does."""
        self._set(lane, _Lane.WANTED, owner)

    def wanted_by(self, lane: str) -> int:
        """Return the process that waits for the lane's pins, or NOBODY."""
        return self._get(lane, _Lane.WANTED)

    def bell(self, lane: str) -> int:
        """Return the descriptor that is readable when the lane's owner is to look (eventfd(2))."""
        return self._bells[self._lanes[lane]]

    def ring(self, lane: str) -> None:
        """Have the lane's owner look."""
        os.eventfd_write(self.bell(lane), 1)

    def _ring_all(self) -> None:
        for lane in self._lanes:
            self.ring(lane)
        os.eventfd_write(self.news, 1)

    def take(self, lane: str) -> bool:
        """Take the lane's lock, if nobody has it."""
        return self._lock(self._lanes[lane])

    def give(self, lane: str) -> None:
        """Give the lane's lock back; an owner has let go of the pins."""
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


def _digest(id: bytes) -> bytes:
    return hashlib.blake2s(id, digest_size=ID_BYTES).digest()


def _put_text(room: memoryview, text: str) -> None:
    data = text.encode(errors="replace")[:TEXT_BYTES]
    room[:] = data.ljust(TEXT_BYTES, b"\0")


def _text(room: Iterable[int]) -> str:
    # what was cut may end in half a letter
    return bytes(room).rstrip(b"\0").decode(errors="ignore")
