"""Turns the output of a process into lines of its log buffer, each with its task: prints, log records and warnings.

`sys.stdout` and `sys.stderr` of a worker are streams whose lines go to the buffer, which never blocks; so do the
records of `logging`, and the warnings that Python shows. A C library, or a process that a task has started, writes to
the descriptors 1 and 2 past Python. Those lead into the same pipe, and the supervisor recognises such lines by their
missing mark (`sift`).
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.log_format import printable, worker_label

ENGINE = "taskengine"
"""The logger above those of the engine's processes."""
MARK = b"\x1e"
"""The mark before each line of the buffer, in a pipe that tasks write into as well; no line contains it."""
MAX_LINE = 1 << 13
"""Longer lines are cut, so that the supervisor can take each whole, with all its escapes."""


class _TaskStream(io.RawIOBase):
    """The bytes of `sys.stdout` or `sys.stderr`, which become lines of the log in the level `level`."""

    def __init__(self, log: LogBuffer, label: str, level: int, fd: int) -> None:
        super().__init__()
        self._log = log
        self._label = label
        self._level = level
        self._fd = fd
        self._lock = threading.RLock()
        self._begun = bytearray()
        self._by = ("", "")
        """The task that began the line, and its client."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that started processes inherit."""
        return self._fd

    def write(self, data: Any, /) -> int:
        """Put the whole lines of `data`, and keep the rest until its end comes."""
        added = bytes(memoryview(data))
        by = self._log.running()
        with self._lock:
            if self._begun and by != self._by:
                self._end_line()
            self._by = by
            *whole, rest = added.split(b"\n")
            for line in whole:
                self._begun += line
                self._put()
            self._begun += rest
            if len(self._begun) > MAX_LINE:
                self._put()
        return len(added)

    def settle(self) -> None:
        """Put the line that was begun."""
        with self._lock:
            self._end_line()

    def forget(self) -> None:
        """Drop the begun line: it belongs to the process that this one was forked from."""
        self._lock = threading.RLock()
        self._begun.clear()

    def _end_line(self) -> None:
        if self._begun:
            self._put()

    def _put(self) -> None:
        text = self._begun.decode(errors="replace")
        self._begun.clear()
        put_line(self._log, self._label, text, self._level, self._by)


class _LogBufferHandler(logging.Handler):
    """Puts records of `logging` into the log; those of the engine's own loggers as they are."""

    def __init__(self, log: LogBuffer, label: str) -> None:
        super().__init__()
        self._log = log
        self._label = label

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record; each line of a traceback is a line of its own where the log is text."""
        try:
            text = self.format(record)
        except Exception:  # its arguments do not fit: told on stderr, as `logging` does
            self.handleError(record)
            return
        if record.name.partition(".")[0] == ENGINE:
            self._log.put(text, record.levelno)
            return
        by = self._log.running()
        if self._log.format.is_json:
            put_line(self._log, self._label, f"{record.name}: {text}", record.levelno, by)
            return
        for line in f"{record.levelname} {record.name}: {text}".splitlines():
            put_line(self._log, self._label, line, record.levelno, by)


def put_line(log: LogBuffer, label: str, text: str, level: int, by: tuple[str, str]) -> None:
    """Put a line of the task and client `by` into the log."""
    task, client = by
    before = "" if log.format.is_json else f"{label} {task}: " if task else f"{label} "
    for start in range(0, max(len(text), 1), MAX_LINE):
        log.put(before + text[start : start + MAX_LINE], level, task=task, client=client)


def logger_name(role: str) -> str:
    """Return the name of the logger of a process in the role `role`; for each worker `taskengine.worker`."""
    return f"{ENGINE}.{'worker' if ' worker' in role else role.replace(' ', '_')}"


def log_by(log: LogBuffer, role: str, level: int) -> None:
    """Send to the log the records of `logging` and the warnings of this process, which has the role `role`."""
    label = worker_label(role, os.getpid()) if " worker" in role else f"[{role.upper()}-{os.getpid()}]"
    handler = _LogBufferHandler(log, label)
    engine, root = logging.getLogger(ENGINE), logging.getLogger()
    # a task module may configure the root logger as it likes: the engine's lines do not go by it
    engine.handlers[:], engine.propagate = [handler], False
    engine.setLevel(level)
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    log.logger = logging.getLogger(logger_name(role))


def print_by(log: LogBuffer, role: str) -> None:
    """Send to the log what Python code of this process, a worker, prints."""
    label = worker_label(role, os.getpid())
    streams = [_TaskStream(log, label, level, fd) for fd, level in ((1, logging.INFO), (2, logging.WARNING))]
    # not through a BufferedWriter, which a handler of signals must not enter twice
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(cast(BinaryIO, stream), "utf-8", "backslashreplace", write_through=True) for stream in streams
    )

    def settle() -> None:
        for stream in streams:
            stream.settle()

    def forget() -> None:
        log.forget()
        for stream in streams:
            stream.forget()

    log.settle = settle
    os.register_at_fork(after_in_child=forget)


def sift(lines: bytes, put: Callable[[str], bytes]) -> bytes:
    """Remove the marks from whole lines of a worker's pipe; `put` formats a text that was written without one."""
    number = lines.count(b"\n")
    if lines.startswith(MARK) and lines.count(MARK) == number and lines.count(b"\n" + MARK) == number - 1:
        return lines[1:].replace(b"\n" + MARK, b"\n")
    sifted = bytearray()
    for line in lines.split(b"\n")[:-1]:
        raw, *marked = line.split(MARK)
        if raw or not marked:
            sifted += put(printable(raw.decode(errors="replace"))) + b"\n"
        for each in marked:
            sifted += each + b"\n"
    return bytes(sifted)
