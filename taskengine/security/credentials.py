"""The keys of a running engine, and how its sockets use them. The encryption is libzmq's (CURVE).

Each socket has a domain. The frontend and the data ports let in the clients of the allow-list. The backend lets in only
the engine's own processes, by a key that lives as long as the engine and is in no file. By another such key the metrics
process and the recorder are clients.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import zmq

from taskengine.security.keys import KeyRing, Membership, Pair, new_pair

FRONTEND, BACKEND, DATA = "frontend", "backend", "data"


class Credentials(msgspec.Struct, frozen=True):
    """The keys of a running engine; its processes inherit them.

    The keys of its processes at the backend, `inner`, and of its own client, `watcher`, are in no file.
    """

    folder: Path
    engine: Pair
    inner: Pair
    watcher: Pair

    @classmethod
    def of(cls, folder: Path | None) -> Credentials:
        """Read the engine's key from the folder, and make new ones for its own processes. Raises KeysError."""
        ring = KeyRing(folder)
        return cls(ring.folder, ring.engine(), new_pair(), new_pair())

    def serve(self, socket: zmq.Socket[Any], domain: str) -> None:
        """Set up a socket, before it is bound, to let in only clients that the authenticator lets into the domain."""
        socket.curve_server = True
        socket.curve_publickey = self.engine.public.encode()
        socket.curve_secretkey = self.engine.secret.encode()
        socket.zap_domain = domain.encode()

    def join(self, socket: zmq.Socket[Any]) -> None:
        """Set up a socket of an engine's process, before it is connected, to show that it is one."""
        present(socket, self.engine.public, self.inner)


def libzmq_version() -> tuple[int, ...]:
    """Return the version of the libzmq that pyzmq brings along or found."""
    return zmq.zmq_version_info()


def present(socket: zmq.Socket[Any], engine: str, own: Pair) -> None:
    """Set up a socket, before it is connected, to accept only the engine with this key, and to show our own."""
    socket.curve_serverkey = engine.encode()
    socket.curve_publickey = own.public.encode()
    socket.curve_secretkey = own.secret.encode()


def introduce(socket: zmq.Socket[Any], membership: Membership | None) -> None:
    """Set up a client's socket to show its key, if it has one for this engine."""
    if membership is not None:
        present(socket, membership.engine, membership.own)
