"""Notifies systemd of the state of a service of `Type=notify`. Without systemd nothing is sent.

sd_notify(3) describes the messages and $NOTIFY_SOCKET, sd_watchdog_enabled(3) the watchdog.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, MutableMapping

SEND_TIMEOUT_S = 0.5
"""How long a message may wait while systemd's queue is full. After the first failure none waits."""
USEC_INFINITY = 2**64 - 1
BEAT = "WATCHDOG=1"


def ready(pid: int, status: str) -> str:
    """Return the message that the start, or a reload, is over; `systemctl status` shows `status`."""
    return f"READY=1\nMAINPID={pid}\nSTATUS={_line(status)}"


def reloading(now: float) -> str:
    """Return the message that a reload has begun, which READY=1 ends; `now` is in s, of CLOCK_MONOTONIC."""
    return f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}"


def stopping(longest: float) -> str:
    """Return the message that the service stops within `longest` s, which may be longer than TimeoutStopSec=."""
    return f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(longest * 1e6)}"


def _line(text: str) -> str:
    return " ".join(text.split())


def watchdog_limit(usec: str | None, watched: str | None, pid: int) -> float:
    """Return after how many s systemd takes `pid` for hung, by $WATCHDOG_USEC and $WATCHDOG_PID; infinity for never."""
    limit = _number(usec)
    if watched is not None and _number(watched) != pid:
        return float("inf")
    return limit / 1e6 if 0 < limit < USEC_INFINITY else float("inf")


def _number(text: str | None) -> int:
    """Return a whole number as systemd writes it, 0 for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 20 else 0


class Watchdog:
    """The schedule of the watchdog's beats: one every half `limit`, as recommended, from `start` on. Pure."""

    def __init__(self, limit: float) -> None:
        self._pause = limit / 2
        self.due = float("inf")

    def start(self, now: float) -> None:
        """Note that the service is ready: systemd counts from here."""
        self.due = now + self._pause

    def beat(self, now: float) -> bool:
        """Return whether a beat is due; if so, it counts as sent."""
        if now < self.due:
            return False
        self.due = now + self._pause
        return True


class Notifier:
    """Sends messages to systemd at `address`, as in $NOTIFY_SOCKET; only the first failure is logged with `warn`."""

    def __init__(self, address: str, watchdog: Watchdog, warn: Callable[[str], None]) -> None:
        self._address = address
        self._watchdog = watchdog
        self._warn = warn
        self._has_failed = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int, warn: Callable[[str], None]) -> Notifier:
        """Read systemd's variables and remove them, so that no child notifies for us (`unset_environment`)."""
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, watched = environ.pop("WATCHDOG_USEC", None), environ.pop("WATCHDOG_PID", None)
        return cls(address, Watchdog(watchdog_limit(usec, watched, pid) if address else float("inf")), warn)

    @property
    def due(self) -> float:
        """The time when `beat` has to be called; infinity for never."""
        return self._watchdog.due

    def beat(self, now: float, *, alive: bool) -> None:
        """Send a beat if one is due and the engine is `alive`."""
        if self._watchdog.beat(now) and alive:
            self.tell(BEAT)

    def start(self, now: float, message: str) -> None:
        """Send the `message` that the service is ready, and beat from now on."""
        self.tell(message)
        self._watchdog.start(now)

    def tell(self, message: str) -> None:
        """Send one message. The socket is closed at once: processes that tasks fork must not inherit it."""
        if not self._address:
            return
        try:
            if self._address[0] not in "/@":
                raise OSError("expected a path or an abstract name")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0 if self._has_failed else SEND_TIMEOUT_S)
                name = "\0" + self._address[1:] if self._address[0] == "@" else self._address
                sender.sendto(message.encode(errors="replace"), name)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                self._warn(
                    f"[SUPERVISOR] Cannot notify systemd at NOTIFY_SOCKET={self._address}: {error.strerror or error}"
                )
