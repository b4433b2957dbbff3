"""Heartbeats: tells which peers have been silent for too long. Pure; times are monotonic, in s.

Both ends of a connection send something at least every `interval`, from the loops that do their work; any message
counts as a heartbeat (Paranoid Pirate; zguide, chapter 4). A process that was paused itself, with its machine or alone,
cannot tell which peers were silent meanwhile: that time counts against nobody.
"""

from __future__ import annotations


class _Watch:
    """Notices pauses of this process itself, by the time between two looks."""

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._looked = now

    def absence(self, now: float) -> float:
        """Return how long, in s, this process was away since the last look."""
        gap, self._looked = now - self._looked, now
        return gap if gap > 2 * self._interval else 0.0


class Heartbeat:
    """This process's end of a connection to one peer, which may be silent for `limit` s."""

    def __init__(self, interval: float, limit: float, now: float) -> None:
        self._interval = interval
        self._limit = limit
        self._watch = _Watch(interval, now)
        self._sent = now
        self._heard = now

    def sent(self, now: float) -> None:
        """Note that this process has sent a message."""
        self._sent = now

    def heard(self, now: float) -> None:
        """Note that a message of the peer has come."""
        self._heard = now

    def due(self, now: float) -> float:
        """Return in how many seconds this process has to send a heartbeat."""
        return max(0.0, self._sent + self._interval - now)

    def is_silent(self, now: float) -> bool:
        """Return whether the peer has been silent for too long.

        Call this every interval: a longer pause counts as absence of this process, and not as silence of the peer.
        """
        self._heard += self._watch.absence(now)
        return now - self._heard > self._limit


class HeartbeatMonitor:
    """Finds out which of many peers have been silent for more than `limit` s, or frozen."""

    def __init__(self, interval: float, limit: float, now: float) -> None:
        self._limit = limit
        self._watch = _Watch(interval, now)
        self._heard: dict[str, float] = {}
        self._frozen: dict[str, float] = {}

    def heard(self, name: str, now: float) -> None:
        """Note that a message of a peer has come; its first one makes it a watched peer."""
        self._heard[name] = now

    def leave(self, name: str) -> None:
        """Stop watching a peer: it is gone, or nothing is expected of it."""
        self._heard.pop(name, None)
        self._frozen.pop(name, None)

    def silent(self, now: float) -> list[str]:
        """Return the peers that have been silent for too long. Call this every interval."""
        absence = self._watch.absence(now)
        if absence:
            self._heard = {name: heard + absence for name, heard in self._heard.items()}
            self._frozen.clear()
        return [name for name, heard in self._heard.items() if now - heard > self._limit]

    def is_frozen(self, name: str, now: float, *, stopped: bool) -> bool:
        """Return whether a silent peer has been stopped for too long. Call this at each look; `stopped`: it is now."""
        if not stopped:
            self._frozen.pop(name, None)
            return False
        return now - self._frozen.setdefault(name, now) > self._limit
