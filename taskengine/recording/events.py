"""Events of an engine, as its counters tell them: processes that were restarted, tasks refused, errors. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from taskengine.protocol.messages import Stats
from taskengine.recording.channels import RecordingEntry, event


class EventWatch:
    """Compares the engine's counters with those before, and tells what has happened in between."""

    def __init__(self) -> None:
        self._before: Stats | None = None
        self._is_lost = False

    def seen(self, stats: Stats, now: int) -> Iterator[RecordingEntry]:
        """Yield the events since the last look, at `now` in ns of the wall clock; at the first look there are none."""
        before, self._before = self._before, stats
        if self._is_lost:
            self._is_lost = False
            yield event("engine back", now, "the engine answers again")
        if before is None:
            return
        for role, count in _grown(before.restarts, stats.restarts):
            yield event("restart", now, f"{role} ended and was started again", role=role, count=count)
        if stats.accepted < before.accepted:
            return  # another router, whose counters began at 0
        for kind, count in _grown(before.errors, stats.errors):
            yield event("errors", now, f"{count} task(s) ended in {kind}", type=kind, count=count)
        if stats.refused > before.refused:
            count = stats.refused - before.refused
            yield event("refused", now, f"{count} task(s) were refused: there was no room", count=count)

    def lost(self, why: str, now: int) -> Iterator[RecordingEntry]:
        """Yield the event that the engine does not answer, once until it does."""
        if not self._is_lost:
            self._is_lost = True
            yield event("engine lost", now, why)


def _grown(before: Mapping[str, int], now: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for name, count in now.items():
        more = count - before.get(name, 0)
        if more > 0:
            yield name, more
