"""Whether a client's connection to its engine stands: what tells a slow engine from one that is not there."""

from __future__ import annotations

from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message


class Presence:
    """Watches the one connection of `socket`, a plain or an asyncio one."""

    def __init__(self, socket: zmq.Socket[Any]) -> None:
        self._socket = socket
        self._original = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._monitor: zmq.Socket[bytes] = zmq.Socket.shadow(self._original.underlying)
        self._connected = False

    def connected(self) -> bool:
        """The connection stands, as far as is known."""
        while self._monitor.poll(0):
            self._connected = recv_monitor_message(self._monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return self._connected

    def close(self) -> None:
        """Stop watching; the socket itself stays open."""
        self._socket.disable_monitor()
        self._original.close()
