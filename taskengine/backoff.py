"""How soon a process that ended is started again. Pure."""

from __future__ import annotations

FIRST_S = 0.1
LONGEST_S = 5.0
SETTLED_S = 10.0


class Backoff:
    """At once after a settled life; after short lives, doubling from FIRST_S to LONGEST_S."""

    def __init__(self) -> None:
        self._delay = 0.0

    def next(self, lived: float) -> float:
        """Seconds to wait before the next start, when the last life took `lived` s."""
        if lived >= SETTLED_S:
            self._delay = 0.0
            return 0.0
        delay = self._delay
        self._delay = min(max(2 * delay, FIRST_S), LONGEST_S)
        return delay
