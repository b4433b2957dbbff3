"""Tells which clients are still connected, by ZeroMQ's events, and which connections are too many. Pure.

ZeroMQ's events name connections by their descriptors. The events of a descriptor come in order, but not in the order of
the messages: the end of a connection may be reported before its last message is read, and a new connection may have the
descriptor by then. So all events have to be read before a client that is new is noted (`hear`). If two clients are
heard by one descriptor, nobody can say which of them has left, so both count as connected until the descriptor ends. If
a descriptor is used again, the key of a message from it may be the previous connection's, until all messages are read
that were waiting (`settle`).

An address of another machine, and a key, may have as many connections as are still free. So the greediest client leaves
half of all connections to others. A new connection, by which no client was heard yet, has room in addition; when that
room is full, the connection that has been silent for longest is ended.
"""

from __future__ import annotations

import sys
from collections import Counter

GONE_KEPT = 1024
"""The most clients that are remembered as gone, since a message of theirs may be read later."""
OWN_IDS = b"\0"
"""The beginning of the routing ids that the ROUTER itself gives to its peers; no two peers have the same id."""
OWN_ID_BYTES = 5


def is_own_id(client: bytes) -> bool:
    """Return whether the ROUTER itself may have given this routing id."""
    return len(client) == OWN_ID_BYTES and client.startswith(OWN_IDS)


class _Connection:
    """An open connection from `address`, "" for this machine's own; `key` is its client's key, "" if not known."""

    __slots__ = ("address", "clients", "is_cut", "key")

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_cut = False
        """Whether it is to end, and is not counted any more."""
        self.key = ""
        self.clients: list[bytes] = []


class ConnectionTable:
    """The clients by their routing ids, and the descriptors of their connections.

    There may be `most` connections, and `silent` more by which no client was heard yet.
    """

    def __init__(self, most: int = sys.maxsize, silent: int = 0) -> None:
        self._most = most
        self._room = silent
        self._count = 0
        self._open: dict[int, _Connection] = {}
        """The open connections, by descriptor."""
        self._silent: dict[int, None] = {}
        """The descriptors by which no client was heard yet, the oldest first."""
        self._ended: set[int] = set()
        self._inherited: set[int] = set()
        """The descriptors by which a message of their previous connection may still come."""
        self.unclaimed: set[int] = set()
        """The descriptors whose key is not known yet: what was heard may have been from their previous connection."""
        self._by_address: Counter[str] = Counter()
        self._by_key: Counter[str] = Counter()
        self.known: dict[bytes, tuple[int, str]] = {}
        """The clients that were heard and have not left, each with the descriptor and the key of its first message."""
        self._gone: dict[bytes, None] = {}

    def has_key(self, client: bytes, key: str) -> bool:
        """Return whether the client is known, and was first heard with this key."""
        return client in self.known and self.known[client][1] == key

    def descriptor_of(self, client: bytes) -> int:
        """Return the descriptor by which the client was first heard; -1 where it is not known."""
        return self.known[client][0] if client in self.known else -1

    def begin(self, descriptor: int, address: str = "") -> list[bytes]:
        """Note a new connection; return the clients of the connection that had its descriptor before."""
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
        """Return the descriptor of the connection that has to end because this one makes too many, None for none.

        Call this after `begin` and `hear`.
        """
        connection = self._open.get(descriptor)
        if connection is None or connection.is_cut:
            return None
        excess = self._excess(descriptor, connection)
        if excess is not None:
            self._count_off(excess, self._open[excess])
        return excess

    def cut(self, descriptor: int) -> bool:
        """Note that a connection is ended for another reason; return whether it was to stay until now."""
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
        """Count a connection no more: it has ended, or is to end."""
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
        """Note the first message of a client; return whether the client is still there.

        All events of its descriptor have to be noted before. A negative descriptor is not known; its client never
        leaves.
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
        """Note that all messages are read that came by connections which are known to have ended."""
        self._ended.clear()
        self._inherited.clear()

    def _claim(self, connection: _Connection, key: str) -> None:
        if key and not connection.key and not connection.is_cut:
            connection.key = key
            self._by_key[key] += 1

    def _note_gone(self, client: bytes) -> None:
        if not client.startswith(OWN_IDS):
            return  # the client chose its id, and may connect again with it
        if len(self._gone) >= GONE_KEPT:
            self._gone.pop(next(iter(self._gone)))
        self._gone[client] = None
