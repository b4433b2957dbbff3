"""The router's replies, and what it keeps of them for a client that does not read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import zmq

from taskengine._socket import Debt, Port
from taskengine.package import Message
from taskengine.wire import CLIENTS_KEPT, UNREAD_BYTES


class Outlet:
    """Sends replies at `port`, a ROUTER with a high-water mark that refuses what has nobody to take it."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._debts: dict[bytes, Debt] = {}

    def is_full(self, client: bytes, size: int) -> bool:
        """The client has left so much unread that `size` more bytes would pass the limit."""
        unsent = self._debt(client).unsent
        return unsent > 0 and unsent + size > UNREAD_BYTES

    def send(self, route: Sequence[bytes], frames: Message) -> None:
        """Reply. A client that has left gets nothing, and one that reads nothing no more than the high-water mark."""
        with contextlib.suppress(zmq.ZMQError):
            self._port.send([*route, *frames], self._debt(route[0]))

    def _debt(self, client: bytes) -> Debt:
        debt = self._debts.get(client)
        if debt is None:
            if len(self._debts) >= CLIENTS_KEPT:
                self._debts = {known: debt for known, debt in self._debts.items() if debt.unsent}
            debt = self._debts[client] = Debt()
        return debt
