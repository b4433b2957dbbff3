"""Writes to standard output without ever blocking, also where a terminal stands still or a disk is full."""

from __future__ import annotations

import logging
import os
import select

from taskengine.config.settings import Settings
from taskengine.runtime.log_format import LEVELS, PLAIN, LineFormat, LogStyle, is_journal

MAX_TEXT_BYTES = 4 << 20
"""The most bytes that wait to be written."""
PIECE = 4096
"""Bytes that a pipe, terminal or socket takes without blocking when it polls writable."""


def fill_standard_fds() -> None:
    """Open the null device in place of stdin, stdout and stderr where they are closed.

    Otherwise the next file that is opened gets their number, and with it what is printed.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def log_style(settings: Settings) -> LogStyle:
    """Return the style of the engine's lines, from the settings and from what our standard output leads to."""
    return LogStyle(settings.log_format, LEVELS[settings.log_level], is_journal(1, os.environ))


class Terminal:
    """Writes whole lines to the descriptor `fd`; lines that cannot be written are left out, and counted."""

    def __init__(self, fd: int = 1, style: LogStyle = PLAIN) -> None:
        self._fd = fd
        self._level = style.level
        self._format = LineFormat(style, "supervisor")
        self._logger: logging.Logger | None = None
        self._text = bytearray()
        self._left_out = 0
        self._notice = (0, 0)
        """How many lines the last notice counts, and where it ends in `_text`: the notice may be lost in turn."""
        self._regular = not (os.isatty(fd) or not os.path.isfile(f"/proc/self/fd/{fd}"))
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    @property
    def pending(self) -> bool:
        """Whether lines wait to be written."""
        return bool(self._text)

    def say(self, line: str) -> None:
        """Log one line."""
        self.log(line, logging.INFO)

    def warn(self, line: str) -> None:
        """Log one line as a warning."""
        self.log(line, logging.WARNING)

    def log(self, line: str, level: int) -> None:
        """Log one line at a level of `logging`, unless that is below LOG_LEVEL."""
        if self._logger is not None:
            self._logger.log(level, line)
        elif level >= self._level:
            self.put(line, level)

    def put(self, line: str, level: int) -> None:
        """Write one line, whatever LOG_LEVEL is."""
        self.add(self._format.line(line, level) + b"\n")
        self.write()

    def log_by(self) -> Terminal:
        """Have the logger `taskengine.supervisor` write to this terminal, which is returned."""
        self._logger = logging.getLogger("taskengine.supervisor")
        self._logger.handlers[:], self._logger.propagate = [_TerminalHandler(self)], False
        self._logger.setLevel(self._level)
        return self

    def add(self, lines: bytes) -> None:
        """Take whole lines, each ending in a newline."""
        if len(self._text) + len(lines) > MAX_TEXT_BYTES:
            self._left_out += lines.count(b"\n")
            return
        self._tell_left_out()
        self._text += lines

    def _tell_left_out(self) -> None:
        if self._left_out:
            said = f"[SUPERVISOR] {self._left_out} lines left out"
            self._text += self._format.line(said, logging.WARNING) + b"\n"
            self._notice, self._left_out = (self._left_out, len(self._text)), 0

    def write(self) -> None:
        """Write as much as can be written now."""
        try:
            while self._text or self._left_out:
                if not self._text:
                    self._tell_left_out()
                if not (self._regular or self._poll.poll(0)):
                    return
                written = os.write(self._fd, self._text if self._regular else self._text[:PIECE])
                del self._text[:written]
                told, end = self._notice
                self._notice = told, end - written
        except OSError:  # a full disk, a closed terminal: the engine outlives its output
            told, end = self._notice
            self._left_out += self._text.count(b"\n") + (told - 1 if end > 0 else 0)
            self._notice = 0, 0
            self._text.clear()


class _TerminalHandler(logging.Handler):
    """Writes the records of a logger to a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self._terminal.put(self.format(record), record.levelno)
