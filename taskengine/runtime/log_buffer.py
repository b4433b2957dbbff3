"""The lines that the processes print, written off the hot path.

A process notes what happened as a function and its arguments; the text is made when the process has nothing else to
do, and goes through a pipe that never blocks to the supervisor, which alone writes to the terminal. Lines that do not
fit are left out and counted, so that a terminal that stands still costs lines and not tasks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from taskengine.errors import CONTROLS

NOTES_KEPT = 4096
PAUSE_MS = 2
"""How long a process has nothing to do before it writes what it noted: between two packages in a row it does not."""
TEXT_KEPT = 1 << 20
_CONTROL = {**CONTROLS, **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}, ord("\n"): " "}
"""A client's name may hold what would tell the terminal to do something."""


class LogBuffer:
    """Lines of one process to the pipe `fd` (non-blocking); `enabled` is ENABLE_STDOUT."""

    def __init__(self, fd: int, enabled: bool) -> None:
        self._fd = fd
        self.enabled = enabled
        self._notes: list[tuple[Callable[..., Iterable[str]], tuple[Any, ...]]] = []
        self._text = bytearray()
        self._left_out = 0
        self._lock = threading.Lock()

    def note(self, lines: Callable[..., Iterable[str]], *args: Any) -> None:
        """Remember to print `lines(*args)`; only called where `enabled`."""
        self._notes.append((lines, args))
        if len(self._notes) >= NOTES_KEPT:
            self.flush()

    def say(self, line: str) -> None:
        """Print one line soon: start, stop, warnings. May be called from any thread."""
        with self._lock:
            self._make()
            self._add(line)
            self._write()

    @property
    def pending(self) -> bool:
        """There is something to flush."""
        return bool(self._notes or self._text)

    def flush(self) -> None:
        """Make the text of what was noted and write what the pipe takes."""
        with self._lock:
            self._make()
            self._write()

    def _make(self) -> None:
        notes, self._notes = self._notes, []
        for lines, args in notes:
            for line in lines(*args):
                self._add(line)

    def _add(self, line: str) -> None:
        if len(self._text) > TEXT_KEPT:
            self._left_out += 1
            return
        if self._left_out:
            self._text += f"[JOURNAL-{os.getpid()}] {self._left_out} lines left out\n".encode()
            self._left_out = 0
        self._text += line.translate(_CONTROL).encode(errors="replace") + b"\n"

    def _write(self) -> None:
        try:
            while self._text:
                del self._text[: os.write(self._fd, self._text[: 1 << 16])]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the supervisor is gone, and so is this process in a moment
            self._text.clear()
