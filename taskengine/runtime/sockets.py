"""Asks the kernel about connections of this process, by their descriptors, and ends them (tcp(7))."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator

_ACKED = struct.Struct("Q")
_ACKED_AT = 120
"""The offset of tcpi_bytes_acked in struct tcp_info, since Linux 4.2 (tcp(7))."""


def number_of(descriptor: int) -> int:
    """Return the number of a socket, which is unique while the machine runs; 0 where there is no socket."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return 0


@contextlib.contextmanager
def _held(descriptor: int, number: int) -> Iterator[socket.socket | None]:
    """Yield the socket, None where another one has the descriptor by now. It stays open meanwhile."""
    try:
        held = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        yield None
        return
    with held:
        yield held if number_of(held.fileno()) == number else None


def unread(descriptor: int, number: int) -> tuple[int, int] | None:
    """Return how many bytes the peer has not acknowledged, and how many it has; None where the connection is closed."""
    queue = array.array("i", [0])
    with _held(descriptor, number) as held:
        try:
            if held is None:
                return None
            fcntl.ioctl(held, termios.TIOCOUTQ, queue)
            told = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + _ACKED.size)
        except OSError:
            return None
    if len(told) < _ACKED_AT + _ACKED.size:
        return queue[0], 0
    return queue[0], _ACKED.unpack_from(told, _ACKED_AT)[0]


def cut(descriptor: int, number: int) -> None:
    """End a connection; the owner of its socket sees that as if the peer had closed it."""
    with _held(descriptor, number) as held, contextlib.suppress(OSError):
        if held is not None:
            held.shutdown(socket.SHUT_RDWR)
