"""What protects the engine's sockets: CURVE keys, and who is let in by them. ZAP is pyzmq's, CURVE libzmq's.

A socket has a domain. On the frontend and the data ports the clients of the allow-list are let in, on the backend only
the engine's own processes, by a key that lives as long as the engine and is in no file; by another such key its metrics
process is a client.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zmq
from zmq.auth import Authenticator

from taskengine._fastpath import Slate
from taskengine._socket import Port
from taskengine.errors import ProtocolError
from taskengine.feed import Feed
from taskengine.handshakes import Handshakes
from taskengine.hardware import Machine
from taskengine.keys import KeyRing, Membership, Pair, Stamp, fingerprint, new_pair
from taskengine.survey import Plan

FRONTEND, BACKEND, DATA = "frontend", "backend", "data"
HELLO = b"HELLO"
HEARTBEAT = b"HEARTBEAT"
"""What the router and a worker send when they have nothing else to send."""

BLIND_S = 1.0
_TEMPORARY = b"300"
"""What ZAP says of a client that is to come again: libzmq ends its connection without a word (RFC 27)."""
_ASKED = 7
"""Frames of a question about a key: version, number, domain, address, routing id, mechanism, key."""


class Security(msgspec.Struct, frozen=True):
    """The keys of a running engine; its processes inherit them.

    Those of its processes at the backend, `inner`, and of its own client, `watcher`, are in no file.
    """

    folder: Path
    engine: Pair
    inner: Pair
    watcher: Pair

    @classmethod
    def of(cls, folder: Path | None) -> Security:
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


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """Who a worker is, which lane it serves, which place it has, and its process."""

    name: str
    lane: str
    place: int
    pid: int
    missing: list[str] = []
    """The modules that it could not load, whose tasks others run."""


class Backplane(msgspec.Struct, frozen=True):
    """How the processes of an engine find and know each other.

    Workers meet the router at `address` and prove to it that they know the `token`, which is new with each engine and
    in no file, and that they are the process that they say: who overhears a hello cannot repeat it. With
    `security` the sockets are encrypted. Each has a place, and there its slate. What tasks publish goes to the data
    workers by the `feeds`, and some lanes have the pins of the `machine`. What each is to load stands in the `plan`.
    """

    address: str
    token: bytes
    security: Security | None
    slates: list[Slate] = []
    feeds: list[Feed] = []
    machine: Machine | None = None
    plan: Plan = msgspec.field(default_factory=Plan)

    def hello(self, name: str, lane: str, place: int, missing: Sequence[str] = ()) -> list[bytes]:
        """What a worker says first."""
        hello = msgspec.msgpack.encode(Hello(name, lane, place, os.getpid(), list(missing)))
        return [HELLO, self._proof(hello), hello]

    def read_hello(self, proof: bytes, hello: bytes, peer: int) -> Hello:
        """What a worker said, behind HELLO, by a connection of the process `peer`; 0 where that is not known.

        Raises ProtocolError where a stranger did.
        """
        if not hmac.compare_digest(proof, self._proof(hello)):
            raise ProtocolError("a stranger says that it is a worker")
        try:
            read = msgspec.msgpack.decode(hello, type=Hello)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"a hello that is none: {error}") from None
        if read.pid != peer and (peer or self.address.startswith("ipc:")):
            raise ProtocolError(f"process {peer} says that it is {read.name}, process {read.pid}")
        return read

    def _proof(self, hello: bytes) -> bytes:
        return hmac.digest(self.token, hello, "sha256")


def present(socket: zmq.Socket[Any], engine: str, own: Pair) -> None:
    """Have a socket, before it is connected, talk only to the engine that has this key, and say who we are."""
    socket.curve_serverkey = engine.encode()
    socket.curve_publickey = own.public.encode()
    socket.curve_secretkey = own.secret.encode()


def introduce(socket: zmq.Socket[Any], membership: Membership | None) -> None:
    """Have a client's socket show its key, if it has one for this engine."""
    if membership is not None:
        present(socket, membership.engine, membership.own)


class Change(NamedTuple):
    """Of the allow-list: names by public keys."""

    added: dict[str, str]
    gone: dict[str, str]


class Gate(Authenticator):
    """Answers libzmq's questions who is let in; `handle` one when `port` is ready.

    `say` prints a line, `note` writes one into the audit log: an event and its fields. Where the allow-list cannot be
    read for BLIND_S, nobody new is let in.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        security: Security,
        say: Callable[[str], None],
        note: Callable[..., None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(context)
        self._say = say
        self._note = note
        self._now = now
        self._knocks_from = ""
        self._handshakes = Handshakes()
        self._added: dict[str, str] = {}
        self._gone: dict[str, str] = {}
        self._banned: set[str] = set()
        self._blind_since: float | None = None
        self._ring = KeyRing(security.folder)
        self._inner = security.inner.public
        self._watcher = security.watcher.public
        self._names: dict[str, str] = {}
        self._stamp: Stamp | None = None
        self.start()
        self.port = Port(self.zap_socket)
        for domain in (FRONTEND, BACKEND, DATA):
            self.configure_curve_callback(domain, _Provider(self))
        self._read()
        self._added.clear()

    def refresh(self) -> Change:
        """Read the allow-list where it has changed; what has, since this was asked last."""
        self._read()
        added, self._added, gone, self._gone = self._added, {}, self._gone, {}
        return Change(added, gone)

    def name_of(self, public: str) -> str | None:
        """The client that has a key, None where it is on the allow-list no more."""
        return self._names.get(public)

    def is_watcher(self, public: str) -> bool:
        """The key is that of the engine's own client."""
        return public == self._watcher

    def lets_in(self, domain: str, public: str) -> bool:
        """Whether the owner of a key is let into the domain."""
        if domain == BACKEND or public == self._inner:
            is_let_in = domain == BACKEND and public == self._inner
        elif public == self._watcher:
            is_let_in = domain == FRONTEND
        else:
            self._read()
            is_let_in = public in self._names and public not in self._banned and not self._is_blind()
        if not is_let_in:
            self._note("not let in", domain=domain, fingerprint=fingerprint(public), address=self._knocks_from)
        return is_let_in

    def ban(self, public: str) -> None:
        """Let a key in no more, here, until the allow-list changes."""
        self._banned.add(public)

    def is_banned(self, public: str) -> bool:
        """The key is let in no more."""
        return public in self._banned

    def _is_blind(self) -> bool:
        """The allow-list could not be read for so long that somebody may have been revoked unseen."""
        return self._blind_since is not None and self._now() - self._blind_since >= BLIND_S

    def _read(self) -> None:
        try:
            stamp = self._ring.stamp()
            if stamp == self._stamp:
                self._blind_since = None
                return
            names, left_out = self._ring.admitted()
        except OSError as error:  # for want of descriptors, which says nothing about keys
            if self._blind_since is None:
                self._say(f"[GATE-{os.getpid()}] The allow-list cannot be read: {error.strerror}")
                self._blind_since = self._now()
            self._revoke(self._ring.changed(self._stamp or ()))
            return
        self._blind_since = None
        self._banned.clear()
        for problem in left_out:
            self._say(f"[GATE-{os.getpid()}] Left out: {problem}")
        self._added |= {public: name for public, name in names.items() if self._names.get(public) != name}
        self._gone |= {public: name for public, name in self._names.items() if names.get(public) != name}
        self._names, self._stamp = names, stamp

    def _revoke(self, names: list[str]) -> None:
        """Let these clients in no more, until the allow-list can be read."""
        for public, name in list(self._names.items()):
            if name in names:
                self._gone[public] = self._names.pop(public)

    def curve_user_id(self, client_public_key: bytes) -> str:
        """What libzmq stamps on the messages of a connection: the key itself, since names can be given to others."""
        return zmq.utils.z85.encode(client_public_key).decode()

    def handle(self) -> None:
        """Answer one question."""
        frames = self.port.receive()
        if frames is not None:
            self._knocks_from = frames[3].decode(errors="replace") if len(frames) > 3 else ""
            if len(frames) == _ASKED and self._is_hasty(frames[2].decode(errors="replace"), frames[6]):
                self.port.send([frames[0], frames[1], _TEMPORARY, b"too many connections in a second", b"", b""])
                return
            answer = self.handle_zap_message(frames)
            try:
                answer.send(None)  # nothing in it waits
            except StopIteration:
                return
            raise RuntimeError("pyzmq's authenticator waits for something")

    def _is_hasty(self, domain: str, key: bytes) -> bool:
        """Whether a client connects too often; the engine's own and strangers do not count."""
        public = self.curve_user_id(key)
        name = self._names.get(public)
        if name is None or domain == BACKEND:
            return False
        knock = self._handshakes.knock(public, self._now())
        if knock.is_news:
            self._note("refused", client=name, address=self._knocks_from, reason="it connects too often")
        return not knock.is_let_in


class _Provider:
    """What pyzmq's authenticator asks of whoever knows the keys."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def callback(self, domain: str, key: bytes) -> bool:
        return self._gate.lets_in(domain, key.decode())
