"""The router's view of which clients are connected: libzmq's news of its frontend's connections."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import zmq

from taskengine._socket import Port
from taskengine.presence import Presence

_EVENT = struct.Struct("=HI")


class Attendance:
    """Watches the connections of `socket`, which is not bound yet, and whose requests `port` receives.

    `part` is told of each client that has left. `news` is a descriptor that becomes readable when there is something to
    `read`: to wait for it costs a turn less than to wait for ZeroMQ's socket.
    """

    def __init__(
        self, context: zmq.Context[Any], socket: zmq.Socket[Any], port: Port, part: Callable[[bytes], None]
    ) -> None:
        self._watched = socket
        self._part = part
        self._presence = Presence()
        self._port = port
        address = f"inproc://attendance-{id(self)}"
        socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.socket: zmq.Socket[Any] = context.socket(zmq.PAIR)
        self.socket.rcvhwm = 0  # libzmq's own thread waits where its news find no room
        self.socket.connect(address)
        self.news = self.socket.FD
        self._told = Port(self.socket)
        self.read()  # ZeroMQ signals nothing to one that has never looked

    def greet(self, client: bytes) -> None:
        """The last request came from this client."""
        if client in self._presence.known:
            return
        self.read()
        if not self._presence.hear(client, self._port.descriptor):
            self._part(client)

    def read(self) -> None:
        """Take the news, all of it: what is left would not make the descriptor readable again."""
        while (frames := self._told.receive()) is not None:
            event, descriptor = _EVENT.unpack_from(frames[0])
            tell = self._presence.begin if event == zmq.EVENT_ACCEPTED else self._presence.end
            for client in tell(descriptor):
                self._part(client)

    def close(self) -> None:
        """Watch no more; before the socket is closed, since libzmq's own thread waits for who reads its news."""
        self._watched.disable_monitor()
        self.socket.close()
