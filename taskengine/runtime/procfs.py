"""Asks the kernel about processes (proc(5), unix(7))."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

from taskengine.runtime.sockets import lent

_CREDENTIALS = struct.Struct("iII")


def is_stopped(pid: int) -> bool:
    """Return whether a signal, such as SIGSTOP, or a debugger has stopped the process; False where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # the name of the process, in brackets, may hold anything
    return stat.rpartition(b")")[2].split()[:1] in ([b"T"], [b"t"])


def peer_process(fd: int) -> int:
    """Return the process that has connected a Unix socket of ours, by its descriptor (SO_PEERCRED).

    0 where the descriptor is closed, or belongs to no Unix socket. This needs no other descriptor.
    """
    with contextlib.suppress(OSError), lent(fd) as peer:
        if peer.family == socket.AF_UNIX:
            told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return int(_CREDENTIALS.unpack(told)[0])
    return 0
