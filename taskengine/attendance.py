"""The router's view of which clients are connected: libzmq's news of its frontend's connections."""

from __future__ import annotations

import struct
from typing import Any

import zmq

from taskengine._socket import Port
from taskengine.presence import Presence

_EVENT = struct.Struct("=HI")


class Attendance:
    """Watches the connections of `socket`, which is not bound yet, and whose requests `port` receives.

    `news` is readable when there are any.
    """

    def __init__(self, context: zmq.Context[Any], socket: zmq.Socket[Any], port: Port) -> None:
        self._watched = socket
        self._presence = Presence()
        self._port = port
        self._left: list[bytes] = []
        address = f"inproc://attendance-{id(self)}"
        socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.socket: zmq.Socket[Any] = context.socket(zmq.PAIR)
        self.socket.rcvhwm = 0  # libzmq's own thread waits where its news find no room
        self.socket.connect(address)
        self.news = Port(self.socket)

    def greet(self, client: bytes) -> None:
        """The last request came from this client."""
        if self._presence.knows(client):
            return
        self._read()
        if not self._presence.hear(client, self._port.descriptor):
            self._left.append(client)

    def left(self) -> list[bytes]:
        """The clients that have left since this was asked last."""
        self._read()
        left, self._left = self._left, []
        return left

    def close(self) -> None:
        """Watch no more; before the socket is closed, since libzmq's own thread waits for who reads its news."""
        self._watched.disable_monitor()
        self.socket.close()

    def _read(self) -> None:
        while (frames := self.news.receive()) is not None:
            event, descriptor = _EVENT.unpack_from(frames[0])
            tell = self._presence.begin if event == zmq.EVENT_ACCEPTED else self._presence.end
            self._left += tell(descriptor)
