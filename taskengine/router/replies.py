"""Sends the router's replies, and limits how many bytes of them wait for clients that do not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import zmq

from taskengine._socket import Debt, Port
from taskengine.broker.package import Message
from taskengine.protocol.limits import MAX_CLIENTS
from taskengine.router.tuning import (
    UNREAD_ALL_BYTES,
    UNREAD_BYTES,
    UNREAD_KEY_BYTES,
    UNREAD_LEAST_BYTES,
    UNREAD_SMALL_BYTES,
)

K = TypeVar("K")
SMALL = 1024
"""Replies below this size, in bytes, are not refused. A client that leaves very many of them unread is cut off."""


class Connections(Protocol):
    """The connections of the port."""

    def has_read(self, client: bytes) -> bool:
        """Return whether the client has read everything that was written to it."""

    def cut_off(self, client: bytes, reason: str = "") -> None:
        """End the client's connection, and note the reason."""


class ReplySender:
    """Sends replies at `port`, a ROUTER with a high-water mark that refuses a message whose client has left.

    Unread replies are limited for each connection, for each key, and in all; without keys, the limit of a key applies
    to the connection. ZeroMQ does not count bytes any more once it has encrypted them. For a connection with a key they
    are therefore assumed to be as many as the largest reply since its client was last seen to have read everything.
    """

    def __init__(self, port: Port, connections: Connections | None = None) -> None:
        self._port = port
        self._connections = connections
        self._encrypted: dict[str, dict[bytes, int]] = {}
        """The bytes that may be encrypted and unread, by key and client."""
        self._all = Debt()
        self._of_keys: dict[str, Debt] = {}
        self._small_of: dict[bytes | str, Debt] = {}
        self._debts: dict[bytes, Debt] = {}

    @property
    def unread(self) -> int:
        """Return how many bytes of replies wait to be read."""
        keys = list(self._encrypted)
        return self._all.unsent + sum(map(self._encrypted_by, keys))

    def is_full(self, client: bytes, key: str, size: int) -> bool:
        """Return whether `size` more bytes would be too many, for the client, for its key or for all clients.

        A single reply may exceed a client's limit while others leave little unread. A small reply always goes to a
        client that has read all replies before it.
        """
        mine = self._debt(client, key).unsent
        if mine and mine + size > UNREAD_BYTES:
            return True
        if not mine and size <= UNREAD_LEAST_BYTES:
            return False
        unread = self._all.unsent
        share = max((UNREAD_ALL_BYTES - unread) // 2, UNREAD_LEAST_BYTES)
        most = min(UNREAD_KEY_BYTES, share)
        by_key = self._of_keys[key].unsent if key else mine
        if by_key and by_key + size > most:
            return True
        if key in self._encrypted and sum(self._encrypted[key].values()) + by_key + size > most:
            encrypted = self._encrypted_by(key)
            if encrypted and encrypted + by_key + size > most:
                return True
        return size > share and unread > UNREAD_ALL_BYTES // 4

    def send(self, route: Sequence[bytes], frames: Message, key: str = "", size: int = 0) -> None:
        """Send a reply of about `size` bytes, 0 for few.

        A client that has left gets nothing, and a client that reads nothing gets no more than the high-water mark.
        """
        if size < SMALL:
            debt = self._known(self._small_of, key or route[0], self._all)
            if debt.unsent > UNREAD_SMALL_BYTES and self._connections is not None:
                self._connections.cut_off(route[0], "too many replies unread")
                return
        else:
            debt = self._debt(route[0], key)
        if key and size > UNREAD_LEAST_BYTES and self._connections is not None:
            encrypted = self._encrypted.setdefault(key, {})
            encrypted[route[0]] = max(size, encrypted.get(route[0], 0))
        try:  # `contextlib.suppress` is three calls
            self._port.send([*route, *frames], debt)
        except zmq.ZMQError:
            return

    def _encrypted_by(self, key: str) -> int:
        """Return how many bytes may be encrypted for clients with this key, and not read."""
        encrypted = self._encrypted[key]
        for client in list(encrypted):
            if not self._debt(client, key).unsent and self._connections and self._connections.has_read(client):
                del encrypted[client]
        if not encrypted:
            del self._encrypted[key]
        return sum(encrypted.values())

    def _debt(self, client: bytes, key: str) -> Debt:
        whole = self._known(self._of_keys, key, self._all) if key else self._all
        return self._known(self._debts, client, whole)

    def _known(self, debts: dict[K, Debt], who: K, whole: Debt) -> Debt:
        debt = debts.get(who)
        if debt is None:
            if len(debts) >= MAX_CLIENTS:
                for other in [other for other, debt in debts.items() if not debt.unsent]:
                    del debts[other]
            debt = debts[who] = Debt(whole)
        return debt
