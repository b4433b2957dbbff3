"""Wakes a thread that waits for a socket: by an eventfd where the system has one, elsewhere by a pair of sockets."""

from __future__ import annotations

import contextlib
import os
import socket

HAS_EVENTFD = hasattr(os, "eventfd")
ENOUGH = 4096
"""Bytes to read at once; nobody rings so often before the waiting thread comes."""
_pairs: dict[int, tuple[socket.socket, socket.socket]] = {}
"""The sockets of each descriptor without an eventfd: the one that is waited for, and the one that is written to."""


def make() -> int:
    """Return a descriptor that can be read once it was rung. Raises OSError if there is none left."""
    if HAS_EVENTFD:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    waiting, ringing = socket.socketpair()
    waiting.setblocking(False)
    ringing.setblocking(False)
    _pairs[waiting.fileno()] = waiting, ringing
    return waiting.fileno()


def ring(wakeup: int) -> None:
    """Make the descriptor readable. Any thread may do this, and a finalizer may."""
    if HAS_EVENTFD:
        os.eventfd_write(wakeup, 1)
        return
    with contextlib.suppress(BlockingIOError):  # full of rings that nobody has heard yet
        _pairs[wakeup][1].send(b"!")


def hush(wakeup: int) -> None:
    """Make the descriptor unreadable again, however often it was rung; it has been."""
    if HAS_EVENTFD:
        os.eventfd_read(wakeup)
        return
    with contextlib.suppress(BlockingIOError):
        _pairs[wakeup][0].recv(ENOUGH)


def close(wakeup: int) -> None:
    """Close the descriptor."""
    if HAS_EVENTFD:
        os.close(wakeup)
        return
    for end in _pairs.pop(wakeup):
        end.close()
