"""The router's view of which clients are connected: libzmq's news of its frontend's connections."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket as sockets
import struct
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

import zmq

from taskengine._socket import Port
from taskengine.broker.origins import is_near
from taskengine.router.connection_table import ConnectionTable
from taskengine.security.handshakes import Handshakes
from taskengine.security.keys import fingerprint

SILENT = 128
"""Connections beside the most, by which nobody was heard yet: half of `confinement.SPARE_FILES`."""
NETWORK_BITS = 64
"""Addresses of IP version 6 that have so many bits in common are one machine's."""
_EVENT = struct.Struct("=HI")


class ConnectionMonitor:
    """Watches the connections of `socket`, which is not bound yet, and whose requests `port` receives.

    `part` is told of each client that has left. Of the connections there are `most`; what is too many is cut off, and
    `note` writes that into the audit log: an event and its fields. `news` is a descriptor that becomes readable when
    there is something to `read`: to wait for it costs a turn less than to wait for ZeroMQ's socket.
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
        """`settle` is to be called once all that has come is read."""
        address = f"inproc://attendance-{id(self)}"
        socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.socket: zmq.Socket[Any] = context.socket(zmq.PAIR)
        self.socket.rcvhwm = 0  # libzmq's own thread waits where its news find no room
        self.socket.connect(address)
        self.news = self.socket.FD
        self._told = Port(self.socket)
        self.read()  # ZeroMQ signals nothing to one that has never looked

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
        """Take the news, all of it: what is left would not make the descriptor readable again."""
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
        # not before all is known: what is too many may have ended, and its descriptor be another's
        for descriptor, address in begun.items():
            self._cut_hasty(descriptor, address)
            self._cut_excess(descriptor)

    def is_here(self, client: bytes, key: str) -> bool:
        """Return whether the client with this key has not left, as far as is known at this moment."""
        self.read()
        return self._presence.has_key(client, key)

    def settle(self) -> None:
        """Return whether all requests were read that had come at the last call."""
        self._presence.settle()
        self.is_unsettled = False

    def cut_off(self, client: bytes, reason: str = "") -> None:
        """End the connection of a client; `reason` is noted."""
        self.read()
        descriptor = self._presence.descriptor_of(client)
        if descriptor >= 0:
            if reason:
                self._note("cut off", address=_address(descriptor), reason=reason)
            _end(descriptor)

    def has_read(self, client: bytes) -> bool:
        """Return whether everything that was written to the client has arrived there, or it has left."""
        self.read()
        descriptor = self._presence.descriptor_of(client)
        return descriptor < 0 or _unsent(descriptor) == 0

    def close(self) -> None:
        """Watch no more; before the socket is closed, since libzmq's own thread waits for who reads its news."""
        self._watched.disable_monitor()
        self.socket.close()

    def _cut_hasty(self, descriptor: int, address: str) -> None:
        """End a new connection where its address makes too many: before the handshake, if we are in time."""
        if not address:
            return
        knock = self._handshakes.knock(address, time.monotonic())
        if not knock.is_let_in and self._presence.cut(descriptor):
            if knock.is_news:
                self._note("cut off", address=address, reason="it connects too often")
            _end(descriptor)

    def _cut_excess(self, descriptor: int, key: str = "") -> None:
        """End the connection that is too many, now that this one is there."""
        excess = self._presence.excess(descriptor)
        if excess is None:
            return
        told = {"fingerprint": fingerprint(key)} if key else {"address": _address(excess)}
        self._note("cut off", **told, reason="too many connections (CONNECTIONS)")
        _end(excess)


def _address(descriptor: int) -> str:
    """Return the IP address that is connected by this descriptor, "" where there is none, or not any more."""
    with contextlib.suppress(OSError):
        connection = sockets.socket(fileno=descriptor)
        try:
            name = connection.getpeername()
            return str(name[0]) if isinstance(name, tuple) else ""
        finally:
            connection.detach()  # it is libzmq's
    return ""


def _far_address(descriptor: int) -> str:
    """As `_address`, "" for this machine's own, and one address for all that a machine may have of version 6."""
    found = _address(descriptor)
    if is_near(found):
        return ""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(found)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
            return str(ipaddress.IPv6Address(int(address) >> NETWORK_BITS << NETWORK_BITS))
    return found


def _unsent(descriptor: int) -> int:
    """Return how many bytes of a connection the system holds because they were not received."""
    held = bytearray(4)
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, held)
    return int.from_bytes(held, sys.byteorder)


def _end(descriptor: int) -> None:
    """End a connection. libzmq sees that as an end of the client's making, and closes the descriptor."""
    with contextlib.suppress(OSError):
        connection = sockets.socket(fileno=descriptor)
        try:
            connection.shutdown(sockets.SHUT_RDWR)
        finally:
            connection.detach()
