"""What a running task says of its progress. Pure."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from taskengine.errors import BadArguments, ProtocolError, shortened

MAX_MESSAGE_TEXT: Final = 200
"""Characters of the message of a report; of a longer one both ends are sent."""
MAX_REPORT: Final = 1024
"""The most bytes of an encoded report."""
REPORT_RATE: Final = 20.0
"""The most reports of a task in a second that are sent, in the long run,"""
REPORT_BURST: Final = 10
"""and at once after a pause;"""
WORKER_RATE: Final = 400.0
"""the most of all tasks of a worker together,"""
WORKER_BURST: Final = 200
"""and at once."""
_LEAST, _MOST = -(2**63), 2**63 - 1
Number = int | float


class Progress(NamedTuple):
    """How far a task is: `done` of `total`, of whatever it counts; `total` is None where the task does not know it."""

    done: Number
    total: Number | None = None
    message: str = ""
    position: int = 0
    """The place of the task among those that were called together, from 0."""

    @property
    def fraction(self) -> float | None:
        """How much is done, from 0.0 to 1.0; None where the total is not known."""
        return None if not self.total else min(1.0, max(0.0, self.done / self.total))


def as_progress(done: Any, total: Any, message: Any) -> Progress:
    """Return what a task has said. Raises BadArguments for numbers that are none, or not finite, and no text."""
    if not isinstance(message, str):
        raise BadArguments(f"progress: a message is text, not {type(message).__name__}", name="progress")
    return Progress(
        _number("done", done), None if total is None else _number("total", total), shortened(message, MAX_MESSAGE_TEXT)
    )


def _number(what: str, value: Any) -> Number:
    """Return a number as an int of 64 bits, or a float, of Python's."""
    number = value if type(value) is int or type(value) is float else _plain(value)
    if not _LEAST <= number <= _MOST:  # nor NaN
        number = _as_float(number)
        if not math.isfinite(number):
            is_plain = value is None or isinstance(value, (str, float))
            shown = shortened(repr(value), 64) if is_plain else f"a value of type {type(value).__name__}"
            raise BadArguments(f"progress: {what} is a finite number, not {shown}", name="progress")
    return number


def _plain(value: Any) -> Number:
    """Return a number of another type, such as one of numpy's, as Python's own; NaN for what is none."""
    if isinstance(value, (str, bytes, bytearray)):
        return math.nan
    try:
        return operator.index(value)
    except TypeError:
        return _as_float(value)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def write_report(position: int, progress: Progress) -> bytes:
    """Encode the report of the task at a position of its package."""
    message = progress.message.encode("utf-8", "replace").decode()
    return msgspec.msgpack.encode((position, progress.done, progress.total, message))


def as_reports(entries: Sequence[Any]) -> list[Progress]:
    """Return the reports that a reply holds, as decoded values. Raises ProtocolError."""
    return [_report(entry) for entry in entries]


def _report(entry: Any) -> Progress:
    try:
        position, done, total, message = entry
    except (TypeError, ValueError):
        raise ProtocolError("a report of progress is [position, done, total, message]") from None
    is_sound = _is_number(done) and (total is None or _is_number(total)) and isinstance(message, str)
    if not (is_sound and isinstance(position, int) and not isinstance(position, bool) and position >= 0):
        raise ProtocolError("a report of progress has two numbers and a text")
    return Progress(done, total, message, position)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Pace:
    """How often reports are sent: `rate` a second, and `burst` of them at once (pattern: token bucket)."""

    __slots__ = ("_burst", "_rate", "_sent", "_tokens")

    def __init__(self, rate: float = REPORT_RATE, burst: int = REPORT_BURST) -> None:
        self._rate = rate
        self._sent = -math.inf
        """When the last report was sent."""
        self._tokens = self._burst = float(burst)

    def allows(self, now: float) -> bool:
        """Return whether a report may be sent at `now`, in s, monotonic; if so, it counts as sent."""
        tokens = min(self._burst, self._tokens + (now - self._sent) * self._rate)
        if tokens < 1.0:
            return False
        self._sent, self._tokens = now, tokens - 1.0
        return True
