"""The audit log: a line of JSON for each refusal, change of a key and privileged call.

Lines go to a file that only its owner reads; where it has grown to `LARGEST` bytes, it becomes `NAME.1` and a new one
begins. A flood costs lines, which are counted, and not the disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from taskengine.keys import default_folder
from taskengine.settings import Settings

LARGEST = 16 * 2**20
LINES_A_SECOND = 50
AUDIT_FILE = "audit.jsonl"
_encode = msgspec.json.Encoder().encode


def file_of(settings: Settings) -> Path | None:
    """Where an engine with these settings keeps its log; None for nowhere, where nobody is told from anybody."""
    if settings.audit:
        return Path(settings.audit).expanduser()
    return (settings.keys_folder or default_folder()) / AUDIT_FILE if settings.is_curved else None


class Throttle:
    """Lets through `rate` events a second and counts the others. Pure."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._second = -1
        self._count = 0
        self._left_out = 0

    def lets_through(self, now: float) -> bool:
        """Whether an event at `now`, in s, is one of those."""
        if int(now) != self._second:
            self._second, self._count = int(now), 0
        self._count += 1
        if self._count <= self._rate:
            return True
        self._left_out += 1
        return False

    def left_out(self) -> int:
        """How many were not, since this was asked last."""
        count, self._left_out = self._left_out, 0
        return count


class Audit:
    """Writes to the file `path`, None for nowhere; `say` tells of what cannot be written."""

    def __init__(self, path: Path | None, say: Callable[[str], object]) -> None:
        self._path = path
        self._say = say
        self._throttle = Throttle(LINES_A_SECOND)
        self._is_failing = False

    def note(self, event: str, **fields: Any) -> None:
        """Write one line."""
        if self._path is None or not self._throttle.lets_through(time.monotonic()):
            return
        left_out = self._throttle.left_out()
        if left_out:
            fields["left_out_before"] = left_out
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = _encode({"time": when, "pid": os.getpid(), "event": event, **fields}) + b"\n"
        try:
            _append(self._path, line)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                self._say(f"[AUDIT-{os.getpid()}] {self._path} cannot be written: {error.strerror}")
            self._is_failing = True


def _append(path: Path, line: bytes) -> None:
    """In one write, so that lines of several processes stay whole."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, line)
        is_full = os.fstat(fd).st_size >= LARGEST
    finally:
        os.close(fd)
    if is_full:
        os.replace(path, path.with_name(f"{path.name}.1"))
