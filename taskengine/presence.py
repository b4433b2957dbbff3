"""Whether a client's connection to its engine stands: what tells a slow engine from one that is not there."""

from __future__ import annotations

import zmq
from zmq.utils.monitor import recv_monitor_message


class Presence:
    """Watches the one connection of `socket`; `monitor` is readable when there is news."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self.connected = False

    def lost(self) -> bool:
        """Take the news, and say whether the connection was lost since the last time."""
        lost = False
        while self.monitor.poll(0):
            self.connected = recv_monitor_message(self.monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            lost = lost or not self.connected
        return lost

    def close(self) -> None:
        """Stop watching; the socket itself stays open."""
        self._socket.disable_monitor()
        self.monitor.close()
