"""The results of a package whose client wants each as it comes, until they are sent. Pure."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

from taskengine.broker.results import Results

_first = itemgetter(0)


class Part(NamedTuple):
    """The entries of tasks in a row, from position `first` to `stop`, of which `failed` are errors."""

    first: int
    stop: int
    failed: int
    bodies: list[bytes]

    @property
    def size(self) -> int:
        """The bytes of the entries."""
        return sum(map(len, self.bodies))


class PartialResults(Results):
    """Results of which only those are kept that are not sent."""

    def __init__(self, tasks: int) -> None:
        self._unsent: list[tuple[int, int, int, bytes]] = []
        self._told = 0
        """How many of those that were added had failed."""
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of the results that are not sent."""
        return self._held

    def put(self, first: int, stop: int, body: bytes) -> bool:
        """Take results of the tasks from `first` to `stop`; return whether none is missing. Raises ProtocolError."""
        is_whole = super().put(first, stop, b"")
        self._unsent.append((first, stop, self.failed - self._told, body))
        self._told = self.failed
        self._held += len(body)
        return is_whole

    def take(self) -> list[Part]:
        """Return all that is not sent, neighbours joined, in the order of the tasks; it counts as sent."""
        parts: list[Part] = []
        for first, stop, failed, body in sorted(self._unsent, key=_first):
            if parts and parts[-1].stop == first:
                before = parts[-1]
                before.bodies.append(body)
                parts[-1] = before._replace(stop=stop, failed=before.failed + failed)
            else:
                parts.append(Part(first, stop, failed, [body]))
        self._unsent.clear()
        self._held = 0
        return parts
