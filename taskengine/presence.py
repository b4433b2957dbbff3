"""Which clients are still connected, by what ZeroMQ tells of descriptors, and which connections are too many. Pure.

News of a descriptor come in order, but not in the order of messages: a connection may be told to have ended before its
last message is read, and another may have its descriptor by then. Of a client that is heard for the first time it is
therefore to be known first what the news are; and where two are heard by one descriptor, nobody can say which of them
has left, so that both count as there until the descriptor ends.

An address of another machine, and a key, may have as many connections as are free, so that whoever takes all it can
leaves half of them to others. Where none is free, the one goes that has been silent for longest.
"""

from __future__ import annotations

import sys
from collections import Counter

GONE_KEPT = 1024
"""Clients that are known to have left: what they sent may be read later."""
OWN_IDS = b"\0"
"""How routing ids begin that the ROUTER itself has given to its peers: no two have the same."""
OWN_ID_BYTES = 5


def is_own_id(client: bytes) -> bool:
    """The ROUTER itself may have given this routing id."""
    return len(client) == OWN_ID_BYTES and client.startswith(OWN_IDS)


class _Connection:
    """One that is open, from `address`, "" for this machine's own; `key` is who was heard by it, "" for nobody."""

    __slots__ = ("address", "clients", "key")

    def __init__(self, address: str) -> None:
        self.address = address
        self.key = ""
        self.clients: list[bytes] = []


class Presence:
    """Clients by their routing ids, and the descriptors of their connections, of which there may be `most`."""

    def __init__(self, most: int = sys.maxsize) -> None:
        self._most = most
        self._open: dict[int, _Connection] = {}
        """By descriptors."""
        self._silent: dict[int, None] = {}
        """Descriptors by which nobody was heard, the oldest first."""
        self._by_address: Counter[str] = Counter()
        self._by_key: Counter[str] = Counter()
        self._known: dict[bytes, tuple[int, str]] = {}
        """Clients that were heard and have not left, with the descriptor and the key that came first."""
        self._gone: dict[bytes, None] = {}

    def knows(self, client: bytes) -> bool:
        """The client has been heard, and has not left."""
        return client in self._known

    def belongs(self, client: bytes, descriptor: int, key: str) -> bool:
        """The client, which is known, was first heard by this descriptor, and with this key."""
        return self._known[client] == (descriptor, key)

    def has_key(self, client: bytes, key: str) -> bool:
        """The client is known, and was first heard with this key."""
        return client in self._known and self._known[client][1] == key

    def descriptor_of(self, client: bytes) -> int:
        """By which the client was first heard; -1 where it is not known."""
        return self._known[client][0] if client in self._known else -1

    def begin(self, descriptor: int, address: str = "") -> list[bytes]:
        """A connection was made; the clients that have left, since another had its descriptor."""
        left = self.end(descriptor)
        self._open[descriptor] = _Connection(address)
        self._silent[descriptor] = None
        self._by_address[address] += 1
        return left

    def end(self, descriptor: int) -> list[bytes]:
        """A connection has ended; the clients that have left."""
        connection = self._open.pop(descriptor, None)
        if connection is None:
            return []
        self._silent.pop(descriptor, None)
        _count_off(self._by_address, connection.address)
        _count_off(self._by_key, connection.key)
        for client in connection.clients:
            self._known.pop(client, None)
            self._note_gone(client)
        return connection.clients

    def excess(self, descriptor: int) -> int | None:
        """The descriptor of the connection that is to end since this one is there, or was heard first; None for none.

        To be asked after `begin` and `hear`.
        """
        connection = self._open.get(descriptor)
        if connection is None:
            return None
        free = self._most - len(self._open)
        for who, counts in ((connection.address, self._by_address), (connection.key, self._by_key)):
            if who and counts[who] > max(free, 1):
                return descriptor
        if free >= 0:
            return None
        oldest = next(iter(self._silent), descriptor)
        self._silent.pop(oldest, None)
        return oldest

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
        if key and not connection.key:
            connection.key = key
            self._by_key[key] += 1
        self._silent.pop(descriptor, None)
        self._known[client] = (descriptor, key)
        return True

    def _note_gone(self, client: bytes) -> None:
        if not client.startswith(OWN_IDS):
            return  # it may come again
        if len(self._gone) >= GONE_KEPT:
            self._gone.pop(next(iter(self._gone)))
        self._gone[client] = None


def _count_off(counts: Counter[str], who: str) -> None:
    counts[who] -= 1
    if counts[who] <= 0:
        del counts[who]
