"""The entries of a package that is answered in parts, from their arrival until they are sent. Pure."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

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


class Partials:
    """The unsent entries of one package."""

    __slots__ = ("_failed", "_pieces", "held")

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int, int, bytes]] = []
        self._failed = 0
        self.held = 0
        """Bytes of the entries."""

    def add(self, first: int, stop: int, failed: int, body: bytes) -> None:
        """Add the entries of the tasks from `first` to `stop`; `failed` tasks of the package have failed so far."""
        self._pieces.append((first, stop, failed - self._failed, body))
        self._failed = failed
        self.held += len(body)

    def take(self) -> list[Part]:
        """Remove and return all, neighbours joined, in the order of the tasks."""
        parts: list[Part] = []
        for first, stop, failed, body in sorted(self._pieces, key=_first):
            if parts and parts[-1].stop == first:
                before = parts[-1]
                before.bodies.append(body)
                parts[-1] = before._replace(stop=stop, failed=before.failed + failed)
            else:
                parts.append(Part(first, stop, failed, [body]))
        self._pieces.clear()
        self.held = 0
        return parts
