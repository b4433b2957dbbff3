"""Orders the renewal of workers in a reload. Pure; times are monotonic, in s."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Rollout:
    """Renews `roles` one after the other, while the others work.

    A worker whose task takes longer than `patience` s is renewed after it, and the next one does not wait for that.
    """

    def __init__(self, roles: Iterable[str], patience: float) -> None:
        self._left = deque(roles)
        self._patience = patience
        self._current: str | None = None
        self._due = 0.0

    def next(self, now: float) -> str | None:
        """Return the role to renew now, None for none."""
        if self._current is not None and now < self._due:
            return None
        self._current = self._left.popleft() if self._left else None
        self._due = now + self._patience
        return self._current

    def started(self, role: str, due: float) -> None:
        """Note that a role has a new process, which loads modules and may take until the time `due`."""
        if role == self._current:
            self._due = max(self._due, due)

    def renewed(self, role: str) -> None:
        """Note that the new process of a role is online."""
        if role == self._current:
            self._current = None

    def is_over(self) -> bool:
        """Return whether every role is renewed or no longer waited for."""
        return self._current is None and not self._left
