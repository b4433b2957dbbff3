"""Buffers a process's lines of the log, and writes them off the hot path.

A process notes a line as a function and its arguments. It makes the text when it is idle, and writes it to a pipe that
never blocks. The supervisor, which alone writes to the terminal, reads the pipe. Lines that do not fit are left out and
counted, so that a terminal that stands still costs lines and not tasks.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from taskengine.runtime.log_format import PLAIN, LineFormat, LogStyle, printable

MAX_NOTES = 4096
"""The most notes before their text is made, idle or not."""
PAUSE_MS = 2
"""A process that is idle for so long writes its lines. Between packages that follow each other it does not."""
MAX_TEXT_BYTES = 1 << 20
"""From so many bytes on that the pipe has not taken, lines are left out."""


class LogBuffer:
    """The lines of the process named `process`, for the pipe `fd`, which is non-blocking.

    `enabled` is ENABLE_STDOUT: whether notes are wanted. Each line begins with `mark`, if tasks write into the same
    pipe.
    """

    def __init__(self, fd: int, enabled: bool, style: LogStyle = PLAIN, process: str = "", mark: bytes = b"") -> None:
        self._fd = fd
        self._level = style.level
        self.enabled = enabled and style.level <= logging.INFO
        self.format = LineFormat(style, process)
        self._mark = mark
        self._notes: list[tuple[Callable[..., Iterable[str]], tuple[Any, ...], float]] = []
        self._text = bytearray()
        self._left_out = 0
        # a handler of signals, or the garbage collector, may print in the middle of a print
        self._lock = threading.RLock()
        self.settle: Callable[[], None] | None = None
        """Called before a flush: lines that were begun elsewhere are put here."""
        self.logger: logging.Logger | None = None
        """The logger of the process's own lines, if it has one."""
        self.running: Callable[[], tuple[str, str]] = _nobody
        """Returns the names of the task that runs in this thread, and of the client that called it; "" for none."""

    def note(self, lines: Callable[..., Iterable[str]], *args: Any) -> None:
        """Note that `lines(*args)` have to be logged; only called if `enabled`."""
        self._notes.append((lines, args, self.format.now()))
        if len(self._notes) >= MAX_NOTES:
            self.flush()

    def say(self, line: str) -> None:
        """Log one line, such as a start or a stop. May be called from any thread."""
        self.log(line, logging.INFO)

    def warn(self, line: str) -> None:
        """Log one line as a warning. May be called from any thread."""
        self.log(line, logging.WARNING)

    def log(self, line: str, level: int) -> None:
        """Log one line at a level of `logging`, unless that is below LOG_LEVEL."""
        if self.logger is not None and not self.logger.disabled:
            self.logger.log(level, line)
        elif level >= self._level:
            self.put(line, level)

    def put(self, line: str, level: int = logging.INFO, *, task: str = "", client: str = "") -> None:
        """Write one line, whatever LOG_LEVEL is."""
        with self._lock:
            self._make()
            self._add(line, level, task=task, client=client)
            self._write()

    @property
    def pending(self) -> bool:
        """Whether there is anything to flush."""
        return bool(self._notes or self._text or self._left_out)

    def flush(self) -> None:
        """Make the text of the notes, and write as much as the pipe takes."""
        if self.settle is not None:
            self.settle()
        with self._lock:
            self._make()
            self._write()

    def forget(self) -> None:
        """Drop all lines: they belong to the process that this one was forked from."""
        self._lock = threading.RLock()
        self._notes.clear()
        self._text.clear()
        self._left_out = 0

    def _make(self) -> None:
        notes, self._notes = self._notes, []
        for lines, args, at in notes:
            for line in lines(*args):
                self._add(line, logging.INFO, at=at)

    def _add(self, line: str, level: int, **known: Any) -> None:
        if len(self._text) > MAX_TEXT_BYTES:
            self._left_out += 1
            return
        self._tell_left_out()
        text = line if self.format.is_json else printable(line)
        self._text += self._mark + self.format.line(text, level, **known) + b"\n"

    def _tell_left_out(self) -> None:
        if self._left_out:
            said = f"[JOURNAL-{os.getpid()}] {self._left_out} lines left out"
            self._text += self._mark + self.format.line(said, logging.WARNING) + b"\n"
            self._left_out = 0

    def _write(self) -> None:
        try:
            while self._text or self._left_out:
                if not self._text:
                    self._tell_left_out()
                del self._text[: os.write(self._fd, self._text[: 1 << 16])]
        except BlockingIOError:
            return
        except OSError:  # the supervisor is gone, and so is this process in a moment; or a task has closed the pipe
            self._text.clear()
            self._left_out = 0


def _nobody() -> tuple[str, str]:
    return "", ""
