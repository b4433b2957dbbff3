"""Counts how often a package's tasks were lost with their workers. Pure."""

from __future__ import annotations

from taskengine.broker.tuning import DEATHS


class Losses:
    """The deaths of workers that a package has seen. After DEATHS of them a task or a chunk is lost."""

    __slots__ = ("_attempts", "_deaths")

    def __init__(self) -> None:
        self._attempts: dict[int, int] = {}
        """How often a running task was lost and given to another worker, by position."""
        self._deaths: dict[int, int] = {}
        """How many workers have died at a chunk before any of its tasks ran, by number of the chunk."""

    def may_repeat(self, position: int) -> bool:
        """Return whether an idempotent task that was lost while it ran is to run again, and count that."""
        attempts = self._attempts.get(position, 0) + 1
        if attempts >= DEATHS:
            return False
        self._attempts[position] = attempts
        return True

    def blame(self, part: int) -> bool:
        """Count a worker's death before a task of the chunk had begun; return whether the chunk is lost."""
        self._deaths[part] = deaths = self._deaths.get(part, 0) + 1
        return deaths >= DEATHS
