"""Watches the connections of a socket for clients, by the events of libzmq's socket monitor (zmq_socket_monitor(3))."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
import time
from collections.abc import Callable
from typing import Any

import zmq

from taskengine._socket import Port
from taskengine.broker.origins import is_near
from taskengine.router.connection_table import ConnectionTable
from taskengine.runtime.sockets import end, lent, unsent
from taskengine.security.handshakes import Handshakes
from taskengine.security.keys import fingerprint

SILENT = 128
"""The most connections by which no client was heard yet, beside the others: half of `rlimits.SPARE_FILES`."""
NETWORK_BITS = 64
"""IPv6 addresses that have their first so many bits in common count as one machine."""
_EVENT = struct.Struct("=HI")


class ConnectionMonitor:
    """Watches the connections of `socket`, which is not bound yet, and whose requests `port` receives.

    `part` is called with each client that has left. There may be `most` connections; one too many is cut off, and
    `note` writes that into the audit log: an event and its fields. `news` is a descriptor that is readable when there
    are events for `read`: to wait for it costs a turn less than to wait for ZeroMQ's socket.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        socket: zmq.Socket[Any],
        port: Port,
        part: Callable[[bytes], None],
        most: int,
        note: Callable[..., None],
    ) -> None:
        self._watched = socket
        self._part = part
        self._presence = ConnectionTable(most, SILENT)
        self._port = port
        self._note = note
        self._handshakes = Handshakes()
        self.is_unsettled = False
        """Whether `settle` has to be called once all waiting requests are read."""
        address = f"inproc://attendance-{id(self)}"
        socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.socket: zmq.Socket[Any] = context.socket(zmq.PAIR)
        self.socket.rcvhwm = 0  # libzmq's own thread would wait if its events found no room
        self.socket.connect(address)
        self.news = self.socket.FD
        self._told = Port(self.socket)
        self.read()  # ZeroMQ makes the descriptor readable only after a first read

    def greet(self, client: bytes, key: str = "") -> bool:
        """Note which client sent the last request, with this key; return whether the routing id is its own."""
        known = self._presence.known.get(client)
        if known is not None:
            return not key or self._is_itself(known, key)
        self.read()
        descriptor = self._port.descriptor
        if self._presence.hear(client, descriptor, key):
            self._cut_excess(descriptor, key)
        else:
            self._part(client)
        return True

    def _is_itself(self, known: tuple[int, str], key: str) -> bool:
        """Return whether the last request came by the descriptor, and with the key, of the known client."""
        descriptor = self._port.descriptor
        if descriptor in self._presence.unclaimed and self._presence.claim(descriptor, key):
            self._cut_excess(descriptor, key)
        return known == (descriptor, key)

    def read(self) -> None:
        """Read all waiting events: any that were left would not make the descriptor readable again."""
        begun: dict[int, str] = {}
        while (frames := self._told.receive()) is not None:
            event, descriptor = _EVENT.unpack_from(frames[0])
            if event == zmq.EVENT_ACCEPTED:
                address = _far_address(descriptor)
                left = self._presence.begin(descriptor, address)
                begun[descriptor] = address
            else:
                left = self._presence.end(descriptor)
                self.is_unsettled = True
            for client in left:
                self._part(client)
        # after all events: a connection that seems too many may have ended, and another may have its descriptor
        for descriptor, address in begun.items():
            self._cut_hasty(descriptor, address)
            self._cut_excess(descriptor)

    def is_here(self, client: bytes, key: str) -> bool:
        """Return whether the client with this key has not left, as far as is known at this moment."""
        self.read()
        return self._presence.has_key(client, key)

    def settle(self) -> None:
        """Note that all requests were read that had come when `read` last returned."""
        self._presence.settle()
        self.is_unsettled = False

    def cut_off(self, client: bytes, reason: str = "") -> None:
        """End the connection of a client; a `reason` goes into the audit log."""
        self.read()
        descriptor = self._presence.descriptor_of(client)
        if descriptor >= 0:
            if reason:
                self._note("cut off", address=_address(descriptor), reason=reason)
            end(descriptor)

    def has_read(self, client: bytes) -> bool:
        """Return whether everything that was written to the client has arrived there, or it has left."""
        self.read()
        descriptor = self._presence.descriptor_of(client)
        return descriptor < 0 or unsent(descriptor) == 0

    def close(self) -> None:
        """Stop watching. Call this before the socket is closed, or libzmq's thread waits for a reader of its events."""
        self._watched.disable_monitor()
        self.socket.close()

    def _cut_hasty(self, descriptor: int, address: str) -> None:
        """End a new connection if its address connects too often; if possible before its handshake."""
        if not address:
            return
        knock = self._handshakes.knock(address, time.monotonic())
        if not knock.is_let_in and self._presence.cut(descriptor):
            if knock.is_news:
                self._note("cut off", address=address, reason="it connects too often")
            end(descriptor)

    def _cut_excess(self, descriptor: int, key: str = "") -> None:
        """End the connection that is too many because of this one, if any is."""
        excess = self._presence.excess(descriptor)
        if excess is None:
            return
        told = {"fingerprint": fingerprint(key)} if key else {"address": _address(excess)}
        self._note("cut off", **told, reason="too many connections (CONNECTIONS)")
        end(excess)


def _address(descriptor: int) -> str:
    """Return the peer's IP address of the connection with this descriptor, "" where there is none."""
    with contextlib.suppress(OSError), lent(descriptor) as connection:
        name = connection.getpeername()
        return str(name[0]) if isinstance(name, tuple) else ""
    return ""


def _far_address(descriptor: int) -> str:
    """Return the peer's IP address; "" for this machine's own. IPv6 addresses are cut to NETWORK_BITS."""
    found = _address(descriptor)
    if is_near(found):
        return ""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(found)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
            return str(ipaddress.IPv6Address(int(address) >> NETWORK_BITS << NETWORK_BITS))
    return found
