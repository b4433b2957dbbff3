"""The credit of a stream: how far its task may be ahead of its reader. Pure.

A stream's reader grants credit in totals, of values and of bytes, counted from the stream's beginning. The next value
may be sent while both totals are above what was sent, so that one value may be larger than the bytes that are left.
Totals only grow: a grant that comes twice, or after a later one, changes nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_VALUES: Final = 1024
"""The most values that a stream's reader may leave unread,"""
MAX_BYTES: Final = 4 * 2**20
"""and the most bytes, to which one value may come on top."""
DEFAULT_VALUES: Final = 64
DEFAULT_BYTES: Final = 2**18
"""The window of the Python client."""


class Grant(NamedTuple):
    """So many values of a stream, and so many bytes of them, may be sent in all."""

    values: int
    bytes: int


class Credit:
    """What was sent of a stream, and what may be."""

    __slots__ = ("_grant", "bytes", "values")

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self.values = 0
        """How many values were sent,"""
        self.bytes = 0
        """and how many bytes of them."""

    @property
    def grant(self) -> Grant:
        """What may be sent in all."""
        return self._grant

    def may_send(self) -> bool:
        """Return whether the next value may be sent, whatever its size."""
        return self.values < self._grant.values and self.bytes < self._grant.bytes

    def send(self, values: int, size: int) -> None:
        """Note that so many values were sent, of `size` bytes together."""
        self.values += values
        self.bytes += size

    def extend(self, grant: Grant) -> bool:
        """Take another grant; return whether it allows more than those before."""
        before = self._grant
        self._grant = Grant(max(before.values, grant.values), max(before.bytes, grant.bytes))
        return self._grant != before

    def is_within(self, grant: Grant) -> bool:
        """Return whether a reader that has read nothing of what was sent may grant so much."""
        return grant.values - self.values <= MAX_VALUES and grant.bytes - self.bytes <= MAX_BYTES


class Window:
    """The reader's side: what it has read, and what it has granted. The task stays at most `size` ahead."""

    __slots__ = ("_base", "_bytes", "_size", "_values")

    def __init__(self, size: Grant) -> None:
        self._size = size
        self._values = self._bytes = 0
        self._base = Grant(0, 0)
        """What had been read at the last grant."""

    @property
    def grant(self) -> Grant:
        """The last grant, in totals."""
        return Grant(self._base.values + self._size.values, self._base.bytes + self._size.bytes)

    def read(self, values: int, size: int) -> Grant | None:
        """Note that so many values were read, of `size` bytes together; return what to grant now, if anything.

        A grant is due when half of the window was read since the last one.
        """
        self._values += values
        self._bytes += size
        if (
            2 * (self._values - self._base.values) < self._size.values
            and 2 * (self._bytes - self._base.bytes) < self._size.bytes
        ):
            return None
        self._base = Grant(self._values, self._bytes)
        return self.grant
