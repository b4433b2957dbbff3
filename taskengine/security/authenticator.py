"""Tells libzmq which keys are let in (ZAP, RFC 27). The protocol itself is pyzmq's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import zmq
from zmq.auth import Authenticator

from taskengine._socket import Port
from taskengine.security.credentials import BACKEND, DATA, FRONTEND, Credentials
from taskengine.security.handshakes import Handshakes
from taskengine.security.keys import KeyRing, Stamp, fingerprint

BLIND_S = 1.0
REST, MOST_REST_S = 10, 0.1
"""A known client is let in by what was read last, for so many times as long as the reading took, and at most for so
many s."""
_TEMPORARY = b"300"
"""The ZAP status for a client that is to try again later: libzmq ends its connection without a message (RFC 27)."""
_ASKED = 7
"""Frames of a request about a key: version, number, domain, address, routing id, mechanism, key."""


class AllowListChange(NamedTuple):
    """A change of the allow-list: names by public keys."""

    added: dict[str, str]
    gone: dict[str, str]


class KeyAuthenticator(Authenticator):
    """Answers libzmq's requests about keys; call `handle` when `port` is ready.

    `say` prints a line, and `note` writes an event with its fields into the audit log. If the allow-list could not be
    read for BLIND_S, no new client is let in.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        security: Credentials,
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
        self._fresh_until = 0.0
        """Until when, in monotonic s, the allow-list is not read again for a known client."""
        self.start()
        self.port = Port(self.zap_socket)
        for domain in (FRONTEND, BACKEND, DATA):
            self.configure_curve_callback(domain, _Provider(self))
        self._read()
        self._added.clear()

    def refresh(self) -> AllowListChange:
        """Read the allow-list if it has changed; return the changes since the last call."""
        self._read()
        added, self._added, gone, self._gone = self._added, {}, self._gone, {}
        return AllowListChange(added, gone)

    def name_of(self, public: str) -> str | None:
        """Return the client that has a key, None if the key is not on the allow-list any more."""
        return self._names.get(public)

    def is_watcher(self, public: str) -> bool:
        """Return whether the key is that of the engine's own client."""
        return public == self._watcher

    def lets_in(self, domain: str, public: str) -> bool:
        """Return whether the owner of a key is let into the domain."""
        if domain == BACKEND or public == self._inner:
            is_let_in = domain == BACKEND and public == self._inner
        elif public == self._watcher:
            is_let_in = domain in (FRONTEND, DATA)
        else:
            # a reading looks at each file: clients that connect again and again took a third of the router's time
            if public not in self._names or self._now() >= self._fresh_until:
                self._read()
            is_let_in = public in self._names and public not in self._banned and not self._is_blind()
        if not is_let_in:
            self._note("not let in", domain=domain, fingerprint=fingerprint(public), address=self._knocks_from)
        return is_let_in

    def ban(self, public: str) -> None:
        """Refuse a key until the allow-list changes."""
        self._banned.add(public)

    def is_banned(self, public: str) -> bool:
        """Return whether the key is refused until the allow-list changes."""
        return public in self._banned

    def _is_blind(self) -> bool:
        """Return whether the allow-list could not be read for so long that a key may have been revoked unnoticed."""
        return self._blind_since is not None and self._now() - self._blind_since >= BLIND_S

    def _read(self) -> None:
        """Read the allow-list if it has changed."""
        began = self._now()
        self._look()
        ended = self._now()
        self._fresh_until = ended + min(REST * (ended - began), MOST_REST_S)

    def _look(self) -> None:
        try:
            stamp = self._ring.stamp()
            if stamp == self._stamp:
                self._blind_since = None
                return
            names, left_out = self._ring.admitted()
        except OSError as error:  # no descriptors are left, which says nothing about keys
            if self._blind_since is None:
                self._say(f"[AUTH-{os.getpid()}] The allow-list cannot be read: {error.strerror}")
                self._blind_since = self._now()
            self._revoke(self._ring.changed(self._stamp or ()))
            return
        self._blind_since = None
        self._banned.clear()
        for problem in left_out:
            self._say(f"[AUTH-{os.getpid()}] Left out: {problem}")
        self._added |= {public: name for public, name in names.items() if self._names.get(public) != name}
        self._gone |= {public: name for public, name in self._names.items() if names.get(public) != name}
        self._names, self._stamp = names, stamp

    def _revoke(self, names: list[str]) -> None:
        """Refuse these clients until the allow-list can be read."""
        for public, name in list(self._names.items()):
            if name in names:
                self._gone[public] = self._names.pop(public)

    def curve_user_id(self, client_public_key: bytes) -> str:
        """Return the user id that libzmq puts on a connection's messages: the key, because names can be given again."""
        return zmq.utils.z85.encode(client_public_key).decode()

    def handle(self) -> None:
        """Answer one request."""
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
        """Return whether a client connects too often; the engine's own client and strangers do not count."""
        public = self.curve_user_id(key)
        name = self._names.get(public)
        if name is None or domain == BACKEND:
            return False
        attempt = self._handshakes.knock(public, self._now())
        if attempt.is_news:
            self._note("refused", client=name, address=self._knocks_from, reason="it connects too often")
        return not attempt.is_let_in


class _Provider:
    """The interface by which pyzmq's authenticator asks about keys."""

    def __init__(self, gate: KeyAuthenticator) -> None:
        self._gate = gate

    def callback(self, domain: str, key: bytes) -> bool:
        return self._gate.lets_in(domain, key.decode())
