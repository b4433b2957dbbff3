"""The transport below ZeroMQ, byte by byte, for peers that do not keep to it (ZMTP 3.0, rfc.zeromq.org/spec/23)."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4) + b"DEALER" + b"\x08Identity" + bytes(4)
READY = bytes([4, len(_READY)]) + _READY
LAST, MORE = 0, 1
_LONG = 2


def frame(body: bytes, flags: int = LAST) -> bytes:
    """A frame of a message; MORE says that others follow."""
    return bytes([flags | _LONG]) + len(body).to_bytes(8) + body


class Peer:
    """A TCP connection to `port` on loopback."""

    def __init__(self, port: int, timeout: float) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def shake_hands(self) -> None:
        """Become a peer as every DEALER does."""
        self.socket.sendall(GREETING)
        self._take(len(GREETING))
        self.socket.sendall(READY)
        header = self._take(2)
        self._take(header[1])

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part, "it hung up"
            data += part
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
