"""When a source is sampled next, and whether it takes longer than its period. Pure.

All times are in s, of one clock that only goes forward. A source that is slower than its period skips beats; it does
not pile them up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from taskengine.messages import SourceStats

RECENT_S: Final = 10.0
"""How long a source is said to overrun after it did."""


class Rhythm:
    """The beats of one source: `due` is when the next is. Its thread begins and ends samples, others may read it."""

    def __init__(self, topic: str, period: float, now: float) -> None:
        self.topic = topic
        self.period = period
        self.due = now
        self._began = math.inf
        self._skipped = 0
        self._longest = 0.0
        self._overran = -math.inf

    def begin(self, now: float) -> None:
        """A sample is taken."""
        self._began = now

    def end(self, now: float) -> None:
        """It is there, or has failed."""
        took = now - self._began
        self._began = math.inf
        beats = max(1, math.ceil((now - self.due) / self.period))
        self.due += beats * self.period
        if took > self.period:
            if now - self._overran > RECENT_S:
                self._longest = 0.0
            self._longest = max(self._longest, took)
            self._skipped += beats - 1
            self._overran = now

    def overrun(self, now: float) -> SourceStats | None:
        """How it overruns, None where it has not done so for RECENT_S."""
        running = max(0.0, now - self._began)
        if running <= self.period and now - self._overran > RECENT_S:
            return None
        longest = self._longest if now - self._overran <= RECENT_S else 0.0
        return SourceStats(self.topic, self.period, max(longest, running), self._skipped)


def overrunning(rhythms: Iterable[Rhythm], now: float) -> list[SourceStats]:
    """Those that overrun."""
    return [stats for rhythm in rhythms if (stats := rhythm.overrun(now)) is not None]
