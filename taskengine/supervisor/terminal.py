"""Standard output, written so that a terminal that stands still, or a full disk, stops nobody."""

from __future__ import annotations

import logging
import os
import select

from taskengine.config.settings import Settings
from taskengine.runtime.log_format import LEVELS, PLAIN, LineFormat, LogStyle, is_journal

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


def log_style(settings: Settings) -> LogStyle:
    """Give the style of the engine's lines: as the settings say, and as what reads our standard output wants them."""
    return LogStyle(settings.log_format, LEVELS[settings.log_level], is_journal(1, os.environ))


class Terminal:
    """Whole lines to the file descriptor `fd`, in a style; those that cannot be written are left out and counted."""

    def __init__(self, fd: int = 1, style: LogStyle = PLAIN) -> None:
        self._fd = fd
        self._level = style.level
        self._format = LineFormat(style, "supervisor")
        self._logger: logging.Logger | None = None
        self._text = bytearray()
        self._left_out = 0
        self._notice = (0, 0)
        """How many lines the last notice of such lines tells, and where it ends in the text; it may fail in turn."""
        self._regular = not (os.isatty(fd) or not os.path.isfile(f"/proc/self/fd/{fd}"))
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    @property
    def pending(self) -> bool:
        """There are lines that wait to be written."""
        return bool(self._text)

    def say(self, line: str) -> None:
        """Print one line."""
        self.log(line, logging.INFO)

    def warn(self, line: str) -> None:
        """Print one line that somebody should see."""
        self.log(line, logging.WARNING)

    def log(self, line: str, level: int) -> None:
        """Print one line of a level of `logging`, if LOG_LEVEL lets it through."""
        if self._logger is not None:
            self._logger.log(level, line)
        elif level >= self._level:
            self.put(line, level)

    def put(self, line: str, level: int) -> None:
        """Print one line, whatever LOG_LEVEL is."""
        self.add(self._format.line(line, level) + b"\n")
        self.write()

    def log_by(self) -> Terminal:
        """Have the logger `taskengine.supervisor` of `logging` print here; gives the terminal."""
        self._logger = logging.getLogger("taskengine.supervisor")
        self._logger.handlers[:], self._logger.propagate = [_TerminalHandler(self)], False
        self._logger.setLevel(self._level)
        return self

    def add(self, lines: bytes) -> None:
        """Take whole lines, each ending in a newline."""
        if len(self._text) + len(lines) > TEXT_KEPT:
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
        """Write what can be written now."""
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
    """Prints records of `logging` on a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        self._terminal.put(self.format(record), record.levelno)
