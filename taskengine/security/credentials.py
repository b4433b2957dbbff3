"""The keys of a running engine, and how a socket shows and asks for them. CURVE is libzmq's.

A socket has a domain. On the frontend and the data ports the clients of the allow-list are let in, on the backend only
the engine's own processes, by a key that lives as long as the engine and is in no file; by another such key its metrics
process is a client.
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

    Those of its processes at the backend, `inner`, and of its own client, `watcher`, are in no file.
    """

    folder: Path
    engine: Pair
    inner: Pair
    watcher: Pair

    @classmethod
    def of(cls, folder: Path | None) -> Credentials:
        """The engine's key from the folder, and new ones for its own processes. Raises KeysError."""
        ring = KeyRing(folder)
        return cls(ring.folder, ring.engine(), new_pair(), new_pair())

    def serve(self, socket: zmq.Socket[Any], domain: str) -> None:
        """Have a socket, before it is bound, let in only whom the gate lets into the domain."""
        socket.curve_server = True
        socket.curve_publickey = self.engine.public.encode()
        socket.curve_secretkey = self.engine.secret.encode()
        socket.zap_domain = domain.encode()

    def join(self, socket: zmq.Socket[Any]) -> None:
        """Have a socket of the engine's own process, before it is connected, show that it is one."""
        present(socket, self.engine.public, self.inner)


def present(socket: zmq.Socket[Any], engine: str, own: Pair) -> None:
    """Have a socket, before it is connected, talk only to the engine that has this key, and say who we are."""
    socket.curve_serverkey = engine.encode()
    socket.curve_publickey = own.public.encode()
    socket.curve_secretkey = own.secret.encode()


def introduce(socket: zmq.Socket[Any], membership: Membership | None) -> None:
    """Have a client's socket show its key, if it has one for this engine."""
    if membership is not None:
        present(socket, membership.engine, membership.own)
