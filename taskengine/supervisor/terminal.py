"""Standard output, written so that a terminal that stands still, or a full disk, stops nobody."""

from __future__ import annotations

import os
import select

TEXT_KEPT = 4 << 20
PIECE = 4096  # what a pipe, a terminal or a socket that polls writable takes without blocking


def fill_standard_fds() -> None:
    """Open the null device in the place of each of stdin, stdout and stderr that is closed.

    Otherwise what is opened next has their number, and gets what is printed.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


class Terminal:
    """Whole lines to the file descriptor `fd`; those that cannot be written are left out and counted."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._text = bytearray()
        self._left_out = 0
        self._regular = not (os.isatty(fd) or not os.path.isfile(f"/proc/self/fd/{fd}"))
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    @property
    def pending(self) -> bool:
        """There are lines that wait to be written."""
        return bool(self._text)

    def say(self, line: str) -> None:
        """Print one line."""
        self.add(line.encode(errors="replace") + b"\n")
        self.write()

    def add(self, lines: bytes) -> None:
        """Take whole lines, each ending in a newline."""
        if len(self._text) + len(lines) > TEXT_KEPT:
            self._left_out += lines.count(b"\n")
            return
        if self._left_out:
            self._text += f"[SUPERVISOR] {self._left_out} lines left out\n".encode()
            self._left_out = 0
        self._text += lines

    def write(self) -> None:
        """Write what can be written now."""
        try:
            while self._text and (self._regular or self._poll.poll(0)):
                piece = self._text if self._regular else self._text[:PIECE]
                del self._text[: os.write(self._fd, piece)]
        except OSError:  # a full disk, a closed terminal: the engine outlives its output
            self._left_out += self._text.count(b"\n")
            self._text.clear()
