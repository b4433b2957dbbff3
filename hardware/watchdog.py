"""Feeds a hardware watchdog, which resets the machine where nobody does.

The interface is the kernel's (Documentation/watchdog/watchdog-api.rst): to open /dev/watchdog starts the timer, each
write starts it again, and `V` as the last write before the end ends it, except where the kernel was built or told
otherwise (nowayout). An end without `V`, such as that of a killed process, lets the timer run out.

`Feeding` decides, and is pure: the watchdog is opened as soon as all lanes have living owners, so that a machine that
cannot start is not reset for ever, and from then on it is fed while they live.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import struct
from collections.abc import Callable

SET_TIMEOUT, GET_TIMEOUT = 0xC0045706, 0x80045707
"""The kernel's WDIOC_SETTIMEOUT and WDIOC_GETTIMEOUT."""
INTERVAL_S = 1.0
"""How often, in s, a watchdog is fed; four times in its timeout if that is shorter."""
AGAIN_S = 1.0
"""How soon, in s, a watchdog that could not be opened is tried again."""
FOOD, END = b"\0", b"V"


class WatchdogState(enum.IntEnum):
    """The states of a watchdog, as the shared state has them."""

    WAITING = 0
    """It is not open, because not every lane has had a living owner yet."""
    FED = 1
    STARVING = 2
    """It is open, and not fed, because an owner is dead."""
    FAILED = 3
    """It cannot be opened or written to."""


class Feeding:
    """Decides when a watchdog of this `timeout` is fed. Times in s."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.state = WatchdogState.WAITING
        self._next = 0.0

    def wants(self, living: bool, now: float) -> bool:
        """Return whether the watchdog is to be opened or fed now; `living` says that every lane has a living owner."""
        if not living:
            if self.state is WatchdogState.FED:
                self.state = WatchdogState.STARVING
            return False
        return self.state is WatchdogState.STARVING or now >= self._next

    def fed(self, now: float) -> None:
        """Note that it was fed."""
        self.state = WatchdogState.FED
        self._next = now + min(INTERVAL_S, self.timeout / 4)

    def failed(self, now: float) -> None:
        """Note that it could not be opened or fed."""
        self.state = WatchdogState.FAILED
        self._next = now + AGAIN_S


class HardwareWatchdog:
    """The watchdog at `path`, with a timeout in s; `warn` prints a line."""

    def __init__(self, path: str, timeout: float, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._feeding = Feeding(timeout)
        self._fd: int | None = None
        self._told = ""

    @property
    def state(self) -> WatchdogState:
        """Its state."""
        return self._feeding.state

    def look(self, living: bool, now: float) -> None:
        """Feed it if that is due; `living` says that every lane has a living owner."""
        if not self._feeding.wants(living, now):
            return
        try:
            if self._fd is None:
                self._fd = self._opened()
            os.write(self._fd, FOOD)
        except OSError as error:
            self.close(ends=False)
            self._feeding.failed(now)
            self._complain(f"it cannot be fed: {error.strerror}")
            return
        self._feeding.fed(now)

    def close(self, *, ends: bool) -> None:
        """Close it; with `ends` its timer ends too, otherwise it runs out. May be called twice."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        with contextlib.suppress(OSError):  # it then resets the machine, which the kernel says
            if ends:
                os.write(fd, END)
        os.close(fd)

    def _opened(self) -> int:
        fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        wanted = self._feeding.timeout
        try:
            fcntl.ioctl(fd, SET_TIMEOUT, struct.pack("i", round(wanted)))
        except OSError as error:
            self._complain(f"its timeout cannot be set to {wanted:g} s: {error.strerror}")
        with contextlib.suppress(OSError):
            (found,) = struct.unpack("i", fcntl.ioctl(fd, GET_TIMEOUT, struct.pack("i", 0)))
            self._feeding.timeout = float(found)
        return fd

    def _complain(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._warn(f"[GUARDIAN] The watchdog {self._path}: {text}")
