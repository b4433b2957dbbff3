"""Which clients are still connected, by what ZeroMQ tells of descriptors. Pure.

News of a descriptor come in order, but not in the order of messages: a connection may be told to have ended before its
last message is read, and another may have its descriptor by then. Of a client that is heard for the first time it is
therefore to be known first what the news are; and where two are heard by one descriptor, nobody can say which of them
has left, so that both count as there until the descriptor ends.
"""

from __future__ import annotations

GONE_KEPT = 1024
"""Clients that are known to have left: what they sent may be read later."""
OWN_IDS = b"\0"
"""How routing ids begin that the ROUTER itself has given to its peers: no two have the same."""


class Presence:
    """Clients by their routing ids, and the descriptors of their connections."""

    def __init__(self) -> None:
        self._clients: dict[int, list[bytes]] = {}
        """By descriptors that are open."""
        self._known: set[bytes] = set()
        self._gone: dict[bytes, None] = {}

    def knows(self, client: bytes) -> bool:
        """The client has been heard, and has not left."""
        return client in self._known

    def begin(self, descriptor: int) -> list[bytes]:
        """A connection was made; the clients that have left, since another had its descriptor."""
        left = self.end(descriptor)
        self._clients[descriptor] = []
        return left

    def end(self, descriptor: int) -> list[bytes]:
        """A connection has ended; the clients that have left."""
        left = self._clients.pop(descriptor, [])
        self._known.difference_update(left)
        for client in left:
            self._note_gone(client)
        return left

    def hear(self, client: bytes, descriptor: int) -> bool:
        """The first message of a client came by a descriptor, all news of which are known; whether it is still there.

        A negative descriptor is none, and nobody leaves by it.
        """
        if descriptor < 0:
            return True
        if client in self._gone or descriptor not in self._clients:
            self._note_gone(client)
            return False
        self._clients[descriptor].append(client)
        self._known.add(client)
        return True

    def _note_gone(self, client: bytes) -> None:
        if not client.startswith(OWN_IDS):
            return  # it may come again
        if len(self._gone) >= GONE_KEPT:
            self._gone.pop(next(iter(self._gone)))
        self._gone[client] = None
