"""The supervisor's signals: SIGINT and SIGTERM stop the engine, SIGHUP reloads, SIGUSR1 stops the machine."""

from __future__ import annotations

import os
import signal
import socket


class SignalCounts:
    """Counts signals; the supervisor's loop acts on them."""

    def __init__(self) -> None:
        self._ttys = [fd for fd in range(3) if os.isatty(fd)]
        self.ends = 0
        """SIGINT and SIGTERM: stop the engine."""
        self.reloads = 0
        """SIGHUP, and requests of clients: reload the task modules."""
        self.stops = 0
        """SIGUSR1: stop the machine."""

    def listen(self) -> socket.socket:
        """Count signals from now on. Return a socket that is readable when one has come."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._wakeup = ours, theirs
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self.note)
        return ours

    def note(self, number: int, frame: object) -> None:
        """Count a signal. SIGHUP from a terminal that was hung up stops the engine."""
        if number == signal.SIGUSR1:
            self.stops += 1
        elif number == signal.SIGHUP and all(map(os.isatty, self._ttys)):
            self.reloads += 1
        else:
            self.ends += 1
