"""The router's partial replies: sends entries of packages soon after they came, as fast as their clients read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from taskengine.broker.broker import Broker
from taskengine.broker.package import Message, Package, Sender
from taskengine.broker.partials import Part, PartialResults
from taskengine.errors import Overloaded
from taskengine.protocol.messages import Stamp
from taskengine.router.replies import Connections
from taskengine.router.tuning import LATE_S, PART_S, UNREAD_PARTS
from taskengine.router.unread_replies import UnreadReplies

LOOKED_AT = 64
"""Partial replies to a client after which the router checks whether the client has read them."""


class Outlet(Protocol):
    """The way to clients; see ReplySender."""

    def is_full(self, client: bytes, key: str, size: int) -> bool:
        """Return whether so much is left unread that `size` more bytes would be too many."""

    def send(self, route: Sequence[bytes], frames: Message, key: str = "", size: int = 0) -> None:
        """Send a reply, with about `size` bytes where those are many."""


class PartialReplies:
    """Sends the entries of the `broker`'s packages through `outlet`.

    Entries for a client that leaves many replies unread wait in the broker, where they count as results and are joined,
    until it has read. `is_owed` tells whether a package's client may still have its results.
    """

    def __init__(
        self,
        broker: Broker,
        outlet: Outlet,
        connections: Connections | None,
        is_owed: Callable[[Sender], bool],
        stamp: Callable[[], Stamp],
    ) -> None:
        self._broker = broker
        self._outlet = outlet
        self._is_owed = is_owed
        self._stamp = stamp
        self._unread = UnreadReplies(connections, LOOKED_AT, UNREAD_PARTS)
        self._new: dict[Package, float] = {}
        """Packages with new entries, and since when they have some, the oldest first."""
        self._late: dict[bytes, dict[Package, None]] = {}
        """Packages with entries for clients that have too much unread."""
        self._next_look = 0.0

    @property
    def are_new(self) -> bool:
        """Return whether entries wait for others to be sent with."""
        return bool(self._new)

    @property
    def are_late(self) -> bool:
        """Return whether entries wait for a client to read."""
        return bool(self._late)

    def send(self, packages: Iterable[Package], now: float) -> None:
        """Take the packages with new entries, and send those that are due at `now`, in s, monotonic.

        Entries wait PART_S for others: most packages are complete by then, and need one reply.
        """
        for package in packages:
            self._new.setdefault(package, now)
        due = list(itertools.takewhile(lambda package: self._new[package] <= now - PART_S, self._new))
        for package in due:
            del self._new[package]
            if package.sender.client in self._late or not self._has_room(package):
                self._late.setdefault(package.sender.client, {})[package] = None
            else:
                self._send_part(package)
        if self._late and now >= self._next_look:
            self._next_look = now + LATE_S
            for client, late in list(self._late.items()):
                if self._has_room(next(iter(late))):
                    del self._late[client]
                    for package in late:
                        self._send_part(package)

    def end(self, package: Package) -> None:
        """Send what is left of a package that is complete, whatever its client has read."""
        self._new.pop(package, None)
        late = self._late.get(package.sender.client)
        if late is not None:
            late.pop(package, None)
            if not late:
                del self._late[package.sender.client]
        results = package.results
        parts = (results.take() if isinstance(results, PartialResults) else []) or [Part(0, 0, 0, [])]
        for part in parts[:-1]:
            self._send(package, part, is_last=False)
        self._send(package, parts[-1], is_last=True)

    def _send_part(self, package: Package) -> None:
        is_owed = self._is_owed(package.sender)
        for part in self._broker.take_parts(package):
            if is_owed:
                self._send(package, part, is_last=False)

    def _send(self, package: Package, part: Part, *, is_last: bool) -> None:
        size, error = part.size, None
        if self._outlet.is_full(package.sender.client, package.sender.key, size):
            # each task is answered all the same, in a few bytes
            error = Overloaded("the replies before this one were not read; the tasks have run", retry_after=None)
            size = 0
        frames = package.partial_answer(part, error, is_last=is_last, stamp=self._stamp())
        self._outlet.send(package.sender.route, frames, package.sender.key, size)
        self._unread.count(package.sender.client)

    def _has_room(self, package: Package) -> bool:
        """Return whether the package's client has read so much that it may get more before its package is complete."""
        sender = package.sender
        return self._unread.has_room(sender.client) and not self._outlet.is_full(
            sender.client, sender.key, package.results.held
        )
