"""What systemd is told of a service of `Type=notify`; where it has not started us, nothing.

The messages and $NOTIFY_SOCKET are those of sd_notify(3), the watchdog is that of sd_watchdog_enabled(3).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, MutableMapping

SEND_TIMEOUT_S = 0.5
"""How long a message may wait while the manager has too many; only the first message may that is not taken."""
USEC_INFINITY = 2**64 - 1
BEAT = "WATCHDOG=1"


def ready(pid: int, status: str) -> str:
    """The start, or a reload, is over; `status` is what `systemctl status` shows."""
    return f"READY=1\nMAINPID={pid}\nSTATUS={_line(status)}"


def reloading(now: float) -> str:
    """The settings are being read anew, until READY=1; `now` is CLOCK_MONOTONIC's, as time.monotonic() gives it."""
    return f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}"


def stopping(longest: float) -> str:
    """We stop, within `longest` s, whatever TimeoutStopSec= says."""
    return f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(longest * 1e6)}"


def _line(text: str) -> str:
    return " ".join(text.split())


def watchdog_limit(usec: str | None, watched: str | None, pid: int) -> float:
    """The seconds after which systemd takes `pid` for hung, by $WATCHDOG_USEC and $WATCHDOG_PID; infinity for never."""
    limit = _number(usec)
    if watched is not None and _number(watched) != pid:
        return float("inf")
    return limit / 1e6 if 0 < limit < USEC_INFINITY else float("inf")


def _number(text: str | None) -> int:
    """A whole number as systemd writes them, or 0."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 20 else 0


class Watchdog:
    """When the next beat is due: every half of `limit` s, as recommended, from `start` on. Pure."""

    def __init__(self, limit: float) -> None:
        self._pause = limit / 2
        self.due = float("inf")

    def start(self, now: float) -> None:
        """The service is ready; systemd counts from here."""
        self.due = now + self._pause

    def beat(self, now: float) -> bool:
        """A beat is due, and taken for done."""
        if now < self.due:
            return False
        self.due = now + self._pause
        return True


class Notifier:
    """Speaks to the manager at `address`, as in $NOTIFY_SOCKET; a failure is one line for `say`, and then silence."""

    def __init__(self, address: str, watchdog: Watchdog, say: Callable[[str], None]) -> None:
        self._address = address
        self._watchdog = watchdog
        self._say = say
        self._has_failed = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int, say: Callable[[str], None]) -> Notifier:
        """Read systemd's variables and remove them, so that no child speaks for us (`unset_environment`)."""
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, watched = environ.pop("WATCHDOG_USEC", None), environ.pop("WATCHDOG_PID", None)
        return cls(address, Watchdog(watchdog_limit(usec, watched, pid) if address else float("inf")), say)

    @property
    def due(self) -> float:
        """When `beat` wants to be called; infinity for never."""
        return self._watchdog.due

    def beat(self, now: float, *, alive: bool) -> None:
        """Tell that we are alive, if we are, where that is due."""
        if self._watchdog.beat(now) and alive:
            self.tell(BEAT)

    def start(self, now: float, message: str) -> None:
        """Tell that we are ready, and beat from now on."""
        self.tell(message)
        self._watchdog.start(now)

    def tell(self, message: str) -> None:
        """Send one message. The socket is closed at once: what tasks fork must not have it."""
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
                self._say(f"[SUPERVISOR] systemd is not told, NOTIFY_SOCKET={self._address}: {error.strerror or error}")
