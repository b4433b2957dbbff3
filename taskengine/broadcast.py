"""The socket on which a data worker publishes: who may subscribe to what."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable

import zmq

from taskengine import gate
from taskengine._socket import Port
from taskengine.audit import Audit, file_of
from taskengine.errors import shortened
from taskengine.gate import Gate, Security
from taskengine.journal import Journal
from taskengine.memory import trim_memory
from taskengine.policy import ANONYMOUS, Policy
from taskengine.settings import Settings
from taskengine.topics import Board
from taskengine.wire import KEYS_LOOK_MS, MAX_TOPIC, NAME_TOLD

SUBSCRIBES, UNSUBSCRIBES = b"\x01", b"\0"
SUBSCRIPTIONS_KEPT = 2048
"""Subscriptions of all clients, refused or not, since ZeroMQ keeps them all."""
CURVE_OVERHEAD = 64
"""Bytes by which an encrypted frame may be longer."""
KEYS_LOOK_S = KEYS_LOOK_MS / 1000
REBIND_S = 2.0
TRIM_S = 1.0
"""How long after a socket was closed ZeroMQ's own thread has freed what it held."""
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
        self._trim_at = math.inf
        self._open()

    def _open(self) -> None:
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._socket.xpub_verbose = 1
        if self._policy is not None:  # nobody is subscribed before we say so
            self._socket.setsockopt(zmq.XPUB_MANUAL, 1)
        self._socket.maxmsgsize = 1 + MAX_TOPIC + CURVE_OVERHEAD
        self._subscriptions = 0
        self._subscribed: Counter[str] = Counter()
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

    def greet(self) -> bool:
        """Take what a subscriber says: give it the last values, or refuse it; whether `port` is another one now.

        ZeroMQ applies what we decide to the connection that it believes to have spoken. A message that is no
        subscription has it believe the wrong one from then on, so whoever sends one is cut off with all the others.
        """
        message = self.port.receive()
        if message is None:
            return False
        if len(message) != 1 or message[0][:1] not in (SUBSCRIBES, UNSUBSCRIBES) or len(message[0]) > 1 + MAX_TOPIC:
            return self._ban(self.port.user, "it sends what is no subscription")
        prefix, is_new = message[0][1:], message[0][:1] == SUBSCRIBES
        if self._policy is not None:
            self._subscriptions += 1 if is_new else -1
            self._subscribed[self.port.user] += is_new
            if self._subscriptions > SUBSCRIPTIONS_KEPT:
                [(most, _)] = self._subscribed.most_common(1)
                return self._ban(most, f"there are more than {SUBSCRIPTIONS_KEPT} subscriptions, most of them its")
            if is_new and not self._may_subscribe(self._policy, prefix):
                return False
            self._socket.setsockopt(zmq.SUBSCRIBE if is_new else zmq.UNSUBSCRIBE, prefix)
        for frames in self._board.replay(prefix) if is_new else ():
            self.publish(frames)
        return False

    def _ban(self, user: str, why: str) -> bool:
        """Let a key in no more until the allow-list changes; without keys nobody can be told from others."""
        if self.gate is None:
            return False
        self._audit.note("cut off", client=self.gate.name_of(user), reason=why)
        self.gate.ban(user)
        self._open_again()
        return True

    def _open_again(self) -> None:
        """A connection of one peer cannot be cut: the socket is bound anew, and all but those not let in come back."""
        self._socket.close()
        self._is_again = True
        self._trim_at = time.monotonic() + TRIM_S
        self._open()

    def _may_subscribe(self, policy: Policy, prefix: bytes) -> bool:
        name = self.gate.name_of(self.port.user) if self.gate else ANONYMOUS
        topic = prefix.decode(errors="replace")
        if name is not None and policy.rights(name).may_subscribe(topic):
            return True
        self._audit.note("refused", client=name, subscribe=shortened(topic, NAME_TOLD))
        return False

    def look_at_keys(self, now: float) -> bool:
        """Cut off whoever is not let in any more; whether `port` is another one now."""
        if self.gate is None or now < self._next_look:
            return False
        self._next_look = now + KEYS_LOOK_S
        self._audit.summarise(now)
        if self._trim_at <= now:
            self._trim_at = math.inf
            trim_memory()
        if not self.gate.refresh().gone:
            return False
        self._open_again()
        return True

    def due(self, now: float) -> float:
        """In how many s to look at the keys; infinite where there are none."""
        return max(0.0, self._next_look - now) if self.gate else float("inf")

    def close(self) -> None:
        """Close the socket, and the gate."""
        self._socket.close()
        if self.gate:
            self.gate.stop()
