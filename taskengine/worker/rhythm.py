"""Schedules the samples of a source, and notices if they take longer than its period. Pure.

All times are in s, of a monotonic clock. A source that is slower than its period skips beats; they do not pile up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from taskengine.protocol.messages import SourceStats

RECENT_S: Final = 10.0
"""How long a source is reported as overrunning after it has overrun."""


class Rhythm:
    """The beats of one source; the next one is at `due`. Its own thread begins and ends samples, others may read."""

    def __init__(self, topic: str, period: float, now: float) -> None:
        self.topic = topic
        self.period = period
        self.due = now
        self._began = math.inf
        self._skipped = 0
        self._longest = 0.0
        self._overran = -math.inf

    def begin(self, now: float) -> None:
        """Note that a sample begins."""
        self._began = now

    def end(self, now: float) -> None:
        """Note that the sample has ended or failed."""
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
        """Return how the source overruns, None if it has not for RECENT_S."""
        running = max(0.0, now - self._began)
        if running <= self.period and now - self._overran > RECENT_S:
            return None
        longest = self._longest if now - self._overran <= RECENT_S else 0.0
        return SourceStats(self.topic, self.period, max(longest, running), self._skipped)


def overrunning(rhythms: Iterable[Rhythm], now: float) -> list[SourceStats]:
    """Return the sources that overrun."""
    return [stats for rhythm in rhythms if (stats := rhythm.overrun(now)) is not None]
