"""The socket on which a data worker publishes: who may subscribe to what."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import zmq

from taskengine import gate
from taskengine._socket import Port
from taskengine.audit import Audit, file_of
from taskengine.gate import Gate, Security
from taskengine.journal import Journal
from taskengine.policy import ANONYMOUS, Policy
from taskengine.settings import Settings
from taskengine.topics import Board
from taskengine.wire import KEYS_LOOK_MS, MAX_TOPIC

SUBSCRIBED = 1
KEYS_LOOK_S = KEYS_LOOK_MS / 1000
REBIND_S = 2.0
REBIND_PAUSE_S = 0.002


class Broadcast:
    """An XPUB at `address`, which `port` reads; new subscribers get the last values from the `board`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        security: Security | None,
        address: str,
        board: Board,
        journal: Journal,
    ) -> None:
        self._context = context
        self._security = security
        self._audit = Audit(file_of(settings), journal.say)
        self._policy = None if settings.policy is None else Policy(settings.policy)
        self.gate = Gate(context, security, journal.say, self._audit.note) if security else None
        self._address = address
        self._handshake_ms = math.ceil(settings.handshake_time * 1000)
        self._board = board
        self._next_look = 0.0
        self._is_again = False
        self._open()

    def _open(self) -> None:
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._socket.xpub_verbose = 1
        if self._policy is not None:  # nobody is subscribed before we say so
            self._socket.setsockopt(zmq.XPUB_MANUAL, 1)
        self._socket.maxmsgsize = MAX_TOPIC + 1
        self._socket.handshake_ivl = self._handshake_ms
        self._socket.linger = 0
        self._socket.ipv6 = "[" in self._address
        if self._security:
            self._security.serve(self._socket, gate.DATA)
        self._bind()
        self.port = Port(self._socket, is_gated=self._security is not None)

    def _bind(self) -> None:
        """Bind, as soon as ZeroMQ's own thread has let go of the address. Raises ZMQError."""
        end = time.monotonic() + REBIND_S
        while True:
            try:
                self._socket.bind(self._address)
                return
            except zmq.ZMQError:
                if not self._is_again or time.monotonic() >= end:
                    raise
                time.sleep(REBIND_PAUSE_S)

    def publish(self, frames: Iterable[bytes]) -> None:
        """To all who have subscribed."""
        self._socket.send_multipart([*frames])

    def greet(self) -> None:
        """Take what a subscriber says: give it the last values, or refuse it."""
        message = self.port.receive()
        if not message or not message[0]:
            return
        prefix, is_new = message[0][1:], message[0][0] == SUBSCRIBED
        if self._policy is not None:
            if is_new and not self._may_subscribe(self._policy, prefix):
                return
            self._socket.setsockopt(zmq.SUBSCRIBE if is_new else zmq.UNSUBSCRIBE, prefix)
        for frames in self._board.replay(prefix) if is_new else ():
            self.publish(frames)

    def _may_subscribe(self, policy: Policy, prefix: bytes) -> bool:
        name = self.gate.name_of(self.port.user) if self.gate else ANONYMOUS
        topic = prefix.decode(errors="replace")
        if name is not None and policy.rights(name).may_subscribe(topic):
            return True
        self._audit.note("refused", client=name, subscribe=topic)
        return False

    def look_at_keys(self, now: float) -> bool:
        """Cut off whoever is not let in any more; whether `port` is another one now.

        A connection of one peer cannot be cut: the socket is bound anew, and all but the revoked come back.
        """
        if self.gate is None or now < self._next_look:
            return False
        self._next_look = now + KEYS_LOOK_S
        if not self.gate.refresh().gone:
            return False
        self._socket.close()
        self._is_again = True
        self._open()
        return True

    def due(self, now: float) -> float:
        """In how many s to look at the keys; infinite where there are none."""
        return max(0.0, self._next_look - now) if self.gate else float("inf")

    def close(self) -> None:
        """Close the socket, and the gate."""
        self._socket.close()
        if self.gate:
            self.gate.stop()
