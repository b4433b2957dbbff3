"""Which clients are still connected, by what ZeroMQ tells of descriptors, and which connections are too many. Pure.

News of a descriptor come in order, but not in the order of messages: a connection may be told to have ended before its
last message is read, and another may have its descriptor by then. Of a client that is heard for the first time it is
therefore to be known first what the news are; and where two are heard by one descriptor, nobody can say which of them
has left, so that both count as there until the descriptor ends. Until all messages are read that were there, the key of
whoever is heard by a descriptor that was another's says nothing of the connection.

An address of another machine, and a key, may have as many connections as are free, so that whoever takes all it can
leaves half of them to others. Who has just come has room beside, to say who it is; where that is full, the one goes
that has been silent for longest.
"""

from __future__ import annotations

import sys
from collections import Counter

GONE_KEPT = 1024
"""Clients that are known to have left: what they sent may be read later."""
OWN_IDS = b"\0"
"""The beginning of routing ids that the ROUTER itself has given to its peers; no two peers have the same."""
OWN_ID_BYTES = 5


def is_own_id(client: bytes) -> bool:
    """Return whether the ROUTER itself may have given this routing id."""
    return len(client) == OWN_ID_BYTES and client.startswith(OWN_IDS)


class _Connection:
    """One that is open, from `address`, "" for this machine's own; `key` is who was heard by it, "" for nobody."""

    __slots__ = ("address", "clients", "is_cut", "key")

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_cut = False
        """Whether it is to end, and counts no more."""
        self.key = ""
        self.clients: list[bytes] = []


class ConnectionTable:
    """Clients by their routing ids, and the descriptors of their connections.

    There may be `most` of them, and `silent` more by which nobody was heard yet.
    """

    def __init__(self, most: int = sys.maxsize, silent: int = 0) -> None:
        self._most = most
        self._room = silent
        self._count = 0
        self._open: dict[int, _Connection] = {}
        """By descriptors."""
        self._silent: dict[int, None] = {}
        """Descriptors by which nobody was heard, the oldest first."""
        self._ended: set[int] = set()
        self._inherited: set[int] = set()
        """Descriptors by which the last message of another connection may still come."""
        self.unclaimed: set[int] = set()
        """Of connections whose key is still to be known, since it was heard when that might have been another's."""
        self._by_address: Counter[str] = Counter()
        self._by_key: Counter[str] = Counter()
        self.known: dict[bytes, tuple[int, str]] = {}
        """The clients that have been heard, and have not left, with the descriptor and the key that came first."""
        self._gone: dict[bytes, None] = {}

    def has_key(self, client: bytes, key: str) -> bool:
        """Return whether the client is known, and was first heard with this key."""
        return client in self.known and self.known[client][1] == key

    def descriptor_of(self, client: bytes) -> int:
        """By which the client was first heard; -1 where it is not known."""
        return self.known[client][0] if client in self.known else -1

    def begin(self, descriptor: int, address: str = "") -> list[bytes]:
        """Note a new connection; return the clients that have left, because another had its descriptor."""
        left = self.end(descriptor)
        if descriptor in self._ended:
            self._inherited.add(descriptor)
        self._open[descriptor] = _Connection(address)
        self._silent[descriptor] = None
        self._by_address[address] += 1
        self._count += 1
        return left

    def end(self, descriptor: int) -> list[bytes]:
        """Note that a connection has ended; return the clients that have left."""
        connection = self._open.pop(descriptor, None)
        if connection is None:
            return []
        self._count_off(descriptor, connection)
        self._ended.add(descriptor)
        self.unclaimed.discard(descriptor)
        for client in connection.clients:
            self.known.pop(client, None)
            self._note_gone(client)
        return connection.clients

    def excess(self, descriptor: int) -> int | None:
        """The descriptor of the connection that is to end since this one is there, or was heard first; None for none.

        To be asked after `begin` and `hear`.
        """
        connection = self._open.get(descriptor)
        if connection is None or connection.is_cut:
            return None
        excess = self._excess(descriptor, connection)
        if excess is not None:
            self._count_off(excess, self._open[excess])
        return excess

    def cut(self, descriptor: int) -> bool:
        """End a connection for another reason; whether it was to stay."""
        connection = self._open.get(descriptor)
        if connection is None or connection.is_cut:
            return False
        self._count_off(descriptor, connection)
        return True

    def _excess(self, descriptor: int, connection: _Connection) -> int | None:
        free = self._most - self._count
        for who, counts in ((connection.address, self._by_address), (connection.key, self._by_key)):
            if who and counts[who] > max(free, 1):
                return descriptor
        if free + min(self._room, len(self._silent)) >= 0:
            return None
        return next(iter(self._silent), descriptor)

    def _count_off(self, descriptor: int, connection: _Connection) -> None:
        """Return whether the connection has ended, or is to end."""
        if connection.is_cut:
            return
        connection.is_cut = True
        self._silent.pop(descriptor, None)
        self._count -= 1
        for who, counts in ((connection.address, self._by_address), (connection.key, self._by_key)):
            counts[who] -= 1
            if counts[who] <= 0:
                del counts[who]

    def hear(self, client: bytes, descriptor: int, key: str = "") -> bool:
        """The first message of a client came by a descriptor, all news of which are known; whether it is still there.

        A negative descriptor is none, and nobody leaves by it.
        """
        if descriptor < 0:
            return True
        connection = self._open.get(descriptor)
        if client in self._gone or connection is None:
            self._note_gone(client)
            return False
        connection.clients.append(client)
        if descriptor in self._inherited:
            self.unclaimed.add(descriptor)
        else:
            self._claim(connection, key)
        self._silent.pop(descriptor, None)
        self.known[client] = (descriptor, key)
        return True

    def claim(self, descriptor: int, key: str) -> bool:
        """Note that a known client was heard again; return whether its connection counts for the key from now on."""
        if descriptor not in self.unclaimed or descriptor in self._inherited:
            return False
        self.unclaimed.discard(descriptor)
        self._claim(self._open[descriptor], key)
        return True

    def settle(self) -> None:
        """All messages are read that came by connections of which it is known that they have ended."""
        self._ended.clear()
        self._inherited.clear()

    def _claim(self, connection: _Connection, key: str) -> None:
        if key and not connection.key and not connection.is_cut:
            connection.key = key
            self._by_key[key] += 1

    def _note_gone(self, client: bytes) -> None:
        if not client.startswith(OWN_IDS):
            return  # it may come again
        if len(self._gone) >= GONE_KEPT:
            self._gone.pop(next(iter(self._gone)))
        self._gone[client] = None
