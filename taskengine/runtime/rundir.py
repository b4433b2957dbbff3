"""The folder of a running engine: Unix sockets beside its ports, for programs of the same user on this machine.

A Unix socket is a tenth faster than a port, and its folder, mode 0700, keeps other users out. The socket STOP leads to
the hardware guardian, past the router. The engine holds a lock on the folder as long as it lives: a folder without a
lock was left by a killed engine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import socket
import stat
import tempfile
from pathlib import Path

from taskengine.security.trusted_files import changeable

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_ANY = str(ipaddress.IPv4Address(0))
ALL_INTERFACES = {"127.0.0.1": _ANY, "localhost": _ANY, "[::1]": f"[{ipaddress.IPv6Address(0)}]"}
FRONTEND, BACKEND, STOP = "frontend", "backend", "stop"
"""The sockets in the folder."""
ATTEMPTS = 3
BACKLOG = 64
LONGEST_PATH = 107
"""The longest address of a Unix socket, in bytes (sockaddr_un, without the closing zero)."""


def _base() -> Path | None:
    """Return the folder for the folders of engines, None where other users could replace them in every candidate.

    XDG_RUNTIME_DIR and TMPDIR may belong to another user: su and `sudo -E` keep them. Windows has none, nor
    an engine.
    """
    if not hasattr(os, "geteuid"):
        return None
    for place in (os.environ.get("XDG_RUNTIME_DIR"), _temporary()):
        base = Path(place or "")
        if place and _is_usable(base) and not any(changeable([base / "taskengine"], (0, os.geteuid()))):
            return base
    return None


def _temporary() -> str | None:
    """Return the folder for temporary files, None where there is none, as on a file system that is read-only."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return None


def _is_usable(base: Path) -> bool:
    """Return whether this is a folder that this process may write to."""
    return os.path.isdir(base) and os.access(base, os.W_OK | os.X_OK, effective_ids=True)


def _folder(base: Path, host: str, port: int | str) -> Path:
    return base / f"taskengine-{os.geteuid()}-{'127.0.0.1' if host == 'localhost' else host}-{port}"


def _is_ours(folder: Path) -> bool:
    """Return whether this user has made the folder, and nobody else can look into it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700


def _lock(folder: Path) -> int | None:
    """Return a descriptor that locks the folder, or None where a running engine has the lock."""
    import fcntl  # which Windows has not, where clients look for engines too

    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


class RunDir:
    """The folder of the engine at `host` and `port`. `close` removes it. It may be that no folder can be made."""

    def __init__(self, host: str, port: int) -> None:
        self._lock: int | None = None
        base = _base()
        if base is None:
            return
        self._folder = _folder(base, f"[{host}]" if ":" in host else host, port)
        # a process that a task forks would hold the lock when the engine is gone
        os.register_at_fork(after_in_child=self._let_go)
        for _ in range(ATTEMPTS):  # another engine's sweep may take a folder that is not locked yet
            _sweep(base)
            with contextlib.suppress(OSError):
                self._folder.mkdir(mode=0o700)
                self._lock = _lock(self._folder)
            if self._lock is not None and self._folder.is_dir():
                return
            self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def address(self, name: str) -> str | None:
        """Return the address of the socket `name`, None where there can be none."""
        if self._lock is None:
            return None
        path = self._folder / name
        if len(os.fsencode(path)) > LONGEST_PATH:
            return None
        return f"ipc://{path}"

    def listen(self, name: str) -> socket.socket | None:
        """Return a Unix socket `name` that takes whole messages (SOCK_SEQPACKET), for processes forked from here on.

        None where there is no folder, or the socket cannot be made.
        """
        address = self.address(name)
        if address is None:
            return None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(address.removeprefix("ipc://"))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            return None
        listener.setblocking(False)
        return listener

    def close(self) -> None:
        """Remove the folder. May be called twice."""
        if self._lock is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._let_go()


def nearest(address: str) -> str:
    """Return the address of the engine's Unix socket where it runs on this machine as this user; else `address`."""
    path = served(address, FRONTEND)
    return address if path is None else f"ipc://{path}"


def stop_path(address: str) -> Path | None:
    """Return the guardian's socket of the engine at `address`, None unless it runs here, as this user, and has pins.

    It takes a message msgpack `[id: bin, why: str]` and answers `[number of the stop, late lanes]`, or `[0, [error]]`.
    """
    return served(address, STOP, socket.SOCK_SEQPACKET)


def served(address: str, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> Path | None:
    """Return the path of socket `name` of the engine at `address`, None unless it is served here, as this user."""
    found = re.fullmatch(r"tcp://(.+):(\d+)", address)
    base = _base() if found and found[1] in LOOPBACK else None
    if found and base is not None:
        named = ("[::1]", ALL_INTERFACES["[::1]"]) if found[1] == "localhost" else ()
        for host in (found[1], ALL_INTERFACES[found[1]], *named):
            folder = _folder(base, host, found[2])
            if _is_ours(folder) and _is_listening(folder / name, kind):
                return folder / name
    return None


def _is_listening(path: Path, kind: socket.SocketKind) -> bool:
    """Return whether a process serves the socket: it accepts connections, or lets them wait."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def _sweep(base: Path) -> None:
    """Remove the folders of killed engines of this user."""
    for folder in base.glob(f"taskengine-{os.geteuid()}-*"):
        fd = _lock(folder) if _is_ours(folder) else None
        if fd is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(fd)
