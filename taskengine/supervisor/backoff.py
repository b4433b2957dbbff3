"""How soon a process that ended is started again. Pure."""

from __future__ import annotations

FIRST_S = 0.1
LONGEST_S = 5.0
SETTLED_S = 10.0
PATIENCE = 3
"""Lives in a row that may be of no use before the next one has to wait."""


class Backoff:
    """At once after a life that was of use; after others, from FIRST_S to LONGEST_S, doubling.

    The first lives of no use are forgiven, but not those that ended before the process was online.
    """

    def __init__(self) -> None:
        self._useless = 0
        self._delay = 0.0

    def next(self, lived: float, *, online: bool, useful: bool) -> float:
        """Seconds to wait before the next start, when the last life took `lived` s; `useful`: it had answered."""
        if useful or lived >= SETTLED_S:
            self._useless = 0
            self._delay = 0.0
            return 0.0
        self._useless += 1
        if online and self._useless < PATIENCE:
            return 0.0
        self._delay = min(max(2 * self._delay, FIRST_S), LONGEST_S)
        return self._delay
