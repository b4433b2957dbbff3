"""What the processes that have to do with a machine share: memory that outlives each of them, and a lock a lane.

The owner of a lane writes when its leases end and what its outputs were told; the guardian reads that once the owner is
dead or hangs. Whoever holds a lane's lock, and nobody else, has its pins. It is a record lock, which the kernel takes
back from a process that dies (fcntl(2), F_SETLK), so that it can never be held by nobody.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os

from taskengine_hardware.kinds import Role
from taskengine_hardware.layout import CHANNELS, Layout, Value, channels

NEVER = 0
"""The end of a lease that does not run."""
NOBODY = 0
"""The process that there is not."""
_WORDS, _LANE_WORDS = 2, 3


class Panel:
    """The memory. Numbers of 8 bytes; times in ns, CLOCK_MONOTONIC, which is the same for all processes."""

    def __init__(self, layout: Layout) -> None:
        self._lanes = {lane: number for number, lane in enumerate(layout.lanes)}
        lanes, devices = len(self._lanes), len(layout.devices)
        words = _WORDS + _LANE_WORDS * lanes + devices
        size = 8 * (words + CHANNELS * devices)
        self._fd = os.memfd_create("taskengine-panel")
        os.ftruncate(self._fd, size)
        view = memoryview(mmap.mmap(self._fd, size))
        numbers = view[: 8 * words].cast("q")
        self._stops, self._stopped_at = numbers[:1], numbers[1:2]
        columns = [numbers[_WORDS + lanes * column :][:lanes] for column in range(_LANE_WORDS)]
        self._heard, self._wanted, self._owner = columns
        self.ends = numbers[_WORDS + _LANE_WORDS * lanes :]
        """When the lease of each device ends, by its place; NEVER where it does not run."""
        self.values = view[8 * words :].cast("d")
        """What each output was told last, CHANNELS numbers by its place; NaN for nothing, or None."""
        for place in range(len(self.values)):
            self.values[place] = math.nan
        self._bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in self._lanes]

    @property
    def stops(self) -> int:
        """How often the machine was stopped and armed again: an odd number where it is stopped."""
        return self._stops[0]

    @property
    def is_stopped(self) -> bool:
        """Nothing is to move."""
        return bool(self._stops[0] & 1)

    @property
    def stopped_at(self) -> int:
        """When it was stopped last."""
        return self._stopped_at[0]

    def stop(self, now: int) -> None:
        """From here on nothing is to move; the owners are told."""
        if not self.is_stopped:
            self._stopped_at[0] = now
            self._stops[0] |= 1
        self._ring_all()

    def arm(self) -> None:
        """From here on things may move; the owners are told."""
        if self.is_stopped:
            self._stops[0] += 1
        self._ring_all()

    def confirm(self, lane: str, stops: int) -> None:
        """The lane's owner, or the guardian, has done what `stops` said."""
        self._heard[self._lanes[lane]] = stops

    def unconfirmed(self) -> list[str]:
        """The lanes where nobody has."""
        return [lane for lane, number in self._lanes.items() if self._heard[number] != self._stops[0]]

    def begin(self, lane: str, owner: int) -> None:
        """A process has the lane's pins, and they are safe. The lock is held."""
        self._owner[self._lanes[lane]] = owner

    def owner(self, lane: str) -> int:
        """The process that had the lane's pins last; NOBODY before the first one."""
        return self._owner[self._lanes[lane]]

    def want(self, lane: str, owner: int) -> None:
        """A process waits for the lane's pins; NOBODY does."""
        self._wanted[self._lanes[lane]] = owner

    def wanted_by(self, lane: str) -> int:
        """The process that waits for the lane's pins, or NOBODY."""
        return self._wanted[self._lanes[lane]]

    def bell(self, lane: str) -> int:
        """The descriptor that is readable when the lane's owner is to look (eventfd(2))."""
        return self._bells[self._lanes[lane]]

    def ring(self, lane: str) -> None:
        """Have the lane's owner look."""
        os.eventfd_write(self.bell(lane), 1)

    def _ring_all(self) -> None:
        for lane in self._lanes:
            self.ring(lane)

    def take(self, lane: str) -> bool:
        """Take the lane's lock, if nobody has it."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._lanes[lane])
        except (BlockingIOError, PermissionError):
            return False
        return True

    def give(self, lane: str) -> None:
        """Give the lane's lock back."""
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, self._lanes[lane])

    def note(self, place: int, value: Value) -> None:
        """An output was told this."""
        first = CHANNELS * place
        if isinstance(value, tuple):
            for channel, number in enumerate(value, first):
                self.values[channel] = number
        else:
            self.values[first] = math.nan if value is None else value

    def last(self, place: int, role: Role) -> Value:
        """What an output was told last; None for nothing."""
        first, count = CHANNELS * place, channels(role)
        told = self.values[first : first + count].tolist()
        if any(map(math.isnan, told)):
            return None
        if count > 1:
            return tuple(told)
        return bool(told[0]) if role is Role.SWITCH else float(told[0])
