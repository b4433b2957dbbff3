"""Formats lines of the log: as text or as JSON, with or without the priorities of journald."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from taskengine.errors import CONTROLS

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""The values of LOG_LEVEL."""
_SHOWN = {**CONTROLS, **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}}
"""Control characters, which a terminal would act on: the name of a client, or what a task prints, may hold some."""
_IN_ONE_LINE = {**_SHOWN, ord("\n"): " "}
_IN_JSON = {code: text for code, text in _SHOWN.items() if code not in (ord("\n"), ord("\t"))}
_STEPS = ((logging.INFO, "debug", 7), (logging.WARNING, "info", 6), (logging.ERROR, "warning", 4))
"""Below a number of `logging`: the name of a level, and its priority in syslog(3)."""
_ERROR = "error", 3


class LogStyle(NamedTuple):
    """The style of lines: their format, and the lowest level that is written.

    With `has_priorities` each line begins with its priority for journald, `<6>` for most (sd-daemon(3)).
    """

    format: Literal["text", "json"] = "text"
    level: int = logging.INFO
    has_priorities: bool = False


PLAIN = LogStyle()
"""Text from info on, as a terminal has it."""


def is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Return whether `fd` leads to systemd's journal, as $JOURNAL_STREAM says; see systemd.exec(5)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def printable(text: str) -> str:
    """Return a text as one line, without control characters."""
    return text.translate(_IN_ONE_LINE)


def worker_label(role: str, pid: int) -> str:
    """Return how the lines of a worker in the role `role` begin."""
    return f"[WORKER-{pid}({'DATA' if role.startswith('data') else 'TASK'})]"


def _name_and_priority(level: int) -> tuple[str, int]:
    return next(((name, priority) for below, name, priority in _STEPS if level < below), _ERROR)


class LineFormat:
    """Formats the lines of the process named `process`, in a style. A new field of JSON lines is added in `line`."""

    def __init__(self, style: LogStyle, process: str) -> None:
        self._style = style
        self._process = process
        self.is_json = style.format == "json"
        self._is_plain = not (self.is_json or style.has_priorities)

    def now(self) -> float:
        """Return the time for a line, in s since 1970; 0.0 if lines have no time."""
        return time.time() if self.is_json else 0.0

    def line(
        self,
        text: str,
        level: int = logging.INFO,
        *,
        at: float | None = None,
        task: str = "",
        client: str = "",
        pid: int | None = None,
    ) -> bytes:
        """Return the line for a text, without its end; `at` is the time that `now` returned for it, None for now.

        The text format takes the text as it is: the names of worker and task are in it already.
        """
        if self._is_plain:
            return text.encode(errors="replace")
        name, priority = _name_and_priority(level)
        data = text.encode(errors="replace")
        if self.is_json:
            entry: dict[str, object] = {
                "time": _iso(self.now() if at is None else at),
                "level": name,
                "process": self._process,
                "pid": os.getpid() if pid is None else pid,
            }
            more = {"task": task, "client": client}
            entry |= {key: _clean(value) for key, value in more.items() if value}
            data = msgspec.json.encode(entry | {"message": _clean(text)})
        return b"<%d>%b" % (priority, data) if self._style.has_priorities else data


def _clean(text: str) -> str:
    return text.translate(_IN_JSON).encode(errors="replace").decode()


def _iso(at: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at * 1000) % 1000:03}Z"
