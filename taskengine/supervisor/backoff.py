"""Delays the restarts of a process that ends again and again. Pure."""

from __future__ import annotations

FIRST_S = 0.1
LONGEST_S = 5.0
SETTLED_S = 10.0
PATIENCE = 3
"""From so many useless lives in a row on, the next start is delayed."""


class Backoff:
    """The backoff of one process: no delay after a useful life, else from FIRST_S on, doubling up to LONGEST_S.

    The first useless lives cause no delay, unless they ended before the process was online. A life of SETTLED_S counts
    as useful.
    """

    def __init__(self) -> None:
        self._useless = 0
        self._delay = 0.0

    def next(self, lived: float, *, online: bool, useful: bool) -> float:
        """Return the delay in s before the next start. The last life took `lived` s; if `useful`, it had answered."""
        if useful or lived >= SETTLED_S:
            self._useless = 0
            self._delay = 0.0
            return 0.0
        self._useless += 1
        if online and self._useless < PATIENCE:
            return 0.0
        self._delay = min(max(2 * self._delay, FIRST_S), LONGEST_S)
        return self._delay
