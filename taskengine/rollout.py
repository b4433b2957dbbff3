"""A reload, worker by worker: who is next. Pure; times are monotonic, in s."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Rollout:
    """Renews `roles` one after the other, so that the others go on working meanwhile.

    One that takes longer than `patience` s, since its task does, is renewed when it can, and not waited for.
    """

    def __init__(self, roles: Iterable[str], patience: float) -> None:
        self._left = deque(roles)
        self._patience = patience
        self._current: str | None = None
        self._due = 0.0

    def next(self, now: float) -> str | None:
        """Whose turn begins now, if anybody's does."""
        if self._current is not None and now < self._due:
            return None
        self._current = self._left.popleft() if self._left else None
        self._due = now + self._patience
        return self._current

    def started(self, role: str, due: float) -> None:
        """A role has a new process, which is waited for until the time `due`: it loads modules."""
        if role == self._current:
            self._due = max(self._due, due)

    def renewed(self, role: str) -> None:
        """A role has a new process that is online."""
        if role == self._current:
            self._current = None

    def is_over(self) -> bool:
        """Nobody is left, and nobody waited for."""
        return self._current is None and not self._left
