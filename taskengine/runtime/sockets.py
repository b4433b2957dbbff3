"""Asks the kernel about connections of this process, by their descriptors, and ends them (tcp(7))."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
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


def unsent(descriptor: int) -> int:
    """Return how many sent bytes of a connection its peer has not acknowledged (TIOCOUTQ); 0 where it is closed."""
    with contextlib.suppress(OSError):
        return _unsent(descriptor)
    return 0


def unread(descriptor: int, number: int) -> tuple[int, int] | None:
    """Return how many bytes the peer has not acknowledged, and how many it has; None where the connection is closed."""
    with _held(descriptor, number) as held:
        try:
            return None if held is None else (_unsent(held.fileno()), _acknowledged(held))
        except OSError:
            return None


def cut(descriptor: int, number: int) -> None:
    """End a connection; the owner of its socket sees that as if the peer had closed it."""
    with _held(descriptor, number) as held:
        if held is not None:
            end(held.fileno())


def end(descriptor: int) -> None:
    """End the connection that has this descriptor now, as `cut` does."""
    with contextlib.suppress(OSError), lent(descriptor) as connection:
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def lent(descriptor: int) -> Iterator[socket.socket]:
    """Yield a socket that does not close its descriptor, which is libzmq's; this needs no other descriptor.

    Raises OSError where there is no socket.
    """
    if descriptor < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    found = socket.socket(fileno=descriptor)
    try:
        yield found
    finally:
        found.detach()


def _unsent(descriptor: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def _acknowledged(held: socket.socket) -> int:
    """Return how many bytes a peer has acknowledged; 0 where the kernel does not count them."""
    told = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + _ACKED.size)
    return 0 if len(told) < _ACKED_AT + _ACKED.size else int(_ACKED.unpack_from(told, _ACKED_AT)[0])
