"""Combines the answers to a stop that goes by several routes at once. Pure.

Each route is repeated until it has answered; one confirmation is enough. "A lane has not confirmed yet" is no answer:
the stop is in force, and asking again tells when the lane is safe. A route that refuses is not asked again. The others
may still succeed, but get little time, because most often they would refuse too. If nothing can be stopped, no other
route need be asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from taskengine.errors import EngineUnreachable, NotAllowed, TaskEngineError, TaskFailed, UnknownTask

NOT_CONFIRMED: Final = "NotConfirmed"
"""The type of the error for a lane that is not safe yet."""
FIRST_REPEAT_S: Final = 0.2
LONGEST_REPEAT_S: Final = 1.6
GRACE_S: Final = 0.5
"""How long, in s, the other routes have after one has refused."""


class Verdict:
    """Takes the answers of the `ways` from `now` on, for `timeout` s; all times are monotonic, in s."""

    def __init__(self, ways: Iterable[str], now: float, timeout: float) -> None:
        self._end = self._latest = now + timeout
        self._due = dict.fromkeys(ways, now)
        self._pauses = dict.fromkeys(self._due, FIRST_REPEAT_S)
        self._errors: list[TaskEngineError] = []
        self.is_confirmed = False

    def due(self, now: float) -> list[str]:
        """Return the routes to take now; each is due again after twice its last pause."""
        due = [way for way, at in self._due.items() if at <= now]
        for way in due:
            self._due[way] = now + self._pauses[way]
            self._pauses[way] = min(2 * self._pauses[way], LONGEST_REPEAT_S)
        return due

    def take(self, way: str, error: TaskEngineError | None, now: float) -> None:
        """Take the answer of a route: None confirms the stop."""
        if error is None:
            self.is_confirmed = True
            return
        self._errors.append(error)
        if _is_unconfirmed(error):
            self._end = self._latest
            return
        self._due.pop(way, None)
        if isinstance(error, UnknownTask):
            self._due.clear()
        elif isinstance(error, NotAllowed) and not any(map(_is_unconfirmed, self._errors)):
            self._end = min(self._end, now + GRACE_S)

    def left(self, now: float) -> float:
        """Return in how many seconds there is something to do; 0 if it is over."""
        if self.is_over(now):
            return 0.0
        return max(0.0, min(self._end, *self._due.values()) - now)

    def is_over(self, now: float) -> bool:
        """Return whether nothing more is to be expected."""
        return self.is_confirmed or not self._due or now >= self._end

    def error(self) -> TaskEngineError | None:
        """Return the error that best explains why the stop is not confirmed; None if no route has answered."""
        return most_telling(self._errors)


def most_telling(errors: Iterable[TaskEngineError]) -> TaskEngineError | None:
    """Return the error that tells the most; None if there is none."""
    return min(errors, key=_rank, default=None)


def _is_unconfirmed(error: TaskEngineError) -> bool:
    return isinstance(error, TaskFailed) and error.fields.get("type") == NOT_CONFIRMED


def _rank(error: TaskEngineError) -> float:
    if _is_unconfirmed(error):
        return 0
    if isinstance(error, EngineUnreachable):
        return math.inf
    kinds = (NotAllowed, UnknownTask)
    return next((place for place, kind in enumerate(kinds, 1) if isinstance(error, kind)), len(kinds) + 1)
