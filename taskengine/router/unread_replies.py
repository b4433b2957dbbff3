"""Counts the replies that go out before a package has ended, and looks now and then whether clients have read them."""

from __future__ import annotations

from taskengine.protocol.limits import MAX_CLIENTS
from taskengine.router.replies import Connections


class UnreadReplies:
    """The replies to each client since it was seen to have read all.

    A client that has not read is looked at after `looked_at` of them, and gets no more after `most`. Without
    `connections` nobody can tell, and all have room.
    """

    def __init__(self, connections: Connections | None, looked_at: int, most: int) -> None:
        self._connections = connections
        self._looked_at = looked_at
        self._most = most
        self._sent: dict[bytes, int] = {}

    def has_room(self, client: bytes) -> bool:
        """Return whether the client has read so much that it may get another one."""
        sent = self._sent.get(client, 0)
        if sent >= self._looked_at and self._connections is not None:
            if self._connections.has_read(client):
                self._sent[client] = 0
            elif sent >= self._most:
                return False
        return True

    def count(self, client: bytes) -> None:
        """Count a reply that is sent."""
        if len(self._sent) >= MAX_CLIENTS:
            self._sent.clear()
        self._sent[client] = self._sent.get(client, 0) + 1
