"""Who has not been heard for too long. Pure; times are monotonic, in s.

Both ends of a connection show themselves at least every `interval`, from the loops that do their work; any traffic
counts (Paranoid Pirate; zguide, chapter 4). Whoever was away itself, since its machine or its process stood still,
cannot tell who was silent meanwhile: that time counts against nobody.
"""

from __future__ import annotations


class _Watch:
    """When it was looked last, and how much of the time since then was lost on us."""

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._looked = now

    def absence(self, now: float) -> float:
        """How long we were away since the last look."""
        gap, self._looked = now - self._looked, now
        return gap if gap > 2 * self._interval else 0.0


class Heartbeat:
    """Our end of a connection to one peer, who may be silent for `limit` s."""

    def __init__(self, interval: float, limit: float, now: float) -> None:
        self._interval = interval
        self._limit = limit
        self._watch = _Watch(interval, now)
        self._sent = now
        self._heard = now

    def sent(self, now: float) -> None:
        """We have shown ourselves."""
        self._sent = now

    def heard(self, now: float) -> None:
        """So has the peer."""
        self._heard = now

    def due(self, now: float) -> float:
        """In how many seconds we have to show ourselves."""
        return max(0.0, self._sent + self._interval - now)

    def is_silent(self, now: float) -> bool:
        """The peer has been silent for too long; to be asked every interval, or else that was our absence."""
        self._heard += self._watch.absence(now)
        return now - self._heard > self._limit


class HeartbeatMonitor:
    """The peers of whoever has many: who has been silent for more than `limit` s, or frozen."""

    def __init__(self, interval: float, limit: float, now: float) -> None:
        self._limit = limit
        self._watch = _Watch(interval, now)
        self._heard: dict[str, float] = {}
        self._frozen: dict[str, float] = {}

    def heard(self, name: str, now: float) -> None:
        """A peer has shown itself; the first time, it joins."""
        self._heard[name] = now

    def leave(self, name: str) -> None:
        """A peer is gone, or not waited for."""
        self._heard.pop(name, None)
        self._frozen.pop(name, None)

    def silent(self, now: float) -> list[str]:
        """Who has been silent for too long; to be asked every interval."""
        absence = self._watch.absence(now)
        if absence:
            self._heard = {name: heard + absence for name, heard in self._heard.items()}
            self._frozen.clear()
        return [name for name, heard in self._heard.items() if now - heard > self._limit]

    def is_frozen(self, name: str, now: float, *, stopped: bool) -> bool:
        """A silent peer has been stopped for too long; to be told at every look whether it is."""
        if not stopped:
            self._frozen.pop(name, None)
            return False
        return now - self._frozen.setdefault(name, now) > self._limit
