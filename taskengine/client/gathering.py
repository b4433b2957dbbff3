"""The results of a package that come one by one, for a caller who wants all of them together. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from taskengine.errors import ProtocolError
from taskengine.protocol.layouts import ERROR_EXT
from taskengine.protocol.messages import PartialReply, Reply, ReplyMode


class Gathering:
    """Collects the partial replies to a package of `count` tasks; `tell` is to be told how many more have ended."""

    def __init__(self, count: int, tell: Callable[[int], object]) -> None:
        self.count = count
        self.tell = tell
        self.ended = 0
        """How many tasks have ended, as far as replies have said."""
        self._parts: dict[int, tuple[int, bytes]] = {}
        self._failed = 0

    def take(self, reply: PartialReply, body: bytes) -> None:
        """Take a partial reply. Raises ProtocolError for one that is of another mode, or has too many entries."""
        if reply.reply is not ReplyMode.EACH or reply.first + reply.count > self.count:
            raise ProtocolError(f"entries from position {reply.first} on, of {self.count} tasks")
        if not reply.count or reply.first in self._parts:
            return
        if reply.error is not None:
            entry = msgspec.msgpack.encode(msgspec.msgpack.Ext(ERROR_EXT, msgspec.msgpack.encode(reply.error)))
            body = entry * reply.count
        self._parts[reply.first] = reply.count, body
        self._failed += reply.failed
        self.ended += reply.count

    def whole(self, serial: int) -> tuple[Reply, bytes]:
        """Return all of it, as one reply of mode ALL. Raises ProtocolError if something is missing."""
        position, bodies = 0, []
        for first, (count, body) in sorted(self._parts.items()):
            if first != position:
                break
            position += count
            bodies.append(body)
        if position != self.count:
            raise ProtocolError(f"the last of the partial replies has come, and none of them had task {position}")
        return Reply(serial, self.count, failed=self._failed), b"".join(bodies)

    def clear(self) -> int:
        """Forget what has come, since the package is sent again; return how many tasks had ended."""
        ended, self.ended, self._failed = self.ended, 0, 0
        self._parts.clear()
        return ended
