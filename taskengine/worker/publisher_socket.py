"""The socket on which a data worker publishes: who may subscribe to what."""

from __future__ import annotations

import math
import os
import time

import zmq

from taskengine._socket import Debt, Port
from taskengine.broker.topics import TopicTable
from taskengine.config.policy import ANONYMOUS, Policy
from taskengine.config.settings import Settings
from taskengine.errors import shortened
from taskengine.protocol.limits import MAX_NAME_LENGTH, MAX_TOPIC
from taskengine.router.connection_monitor import ConnectionMonitor
from taskengine.runtime.hosts import needs_ipv6
from taskengine.runtime.intervals import KEYS_LOOK_MS
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.memory import trim_memory
from taskengine.runtime.rlimits import most_connections
from taskengine.runtime.sockets import cut, number_of, unread
from taskengine.security import credentials
from taskengine.security.audit import Audit, file_of
from taskengine.security.authenticator import KeyAuthenticator
from taskengine.security.credentials import Credentials
from taskengine.worker.subscriptions import Replay, SubscriberConnection, Subscribers, idlest
from taskengine.worker.tuning import MOST_UNTAKEN, SUBSCRIPTIONS_KEPT, UNTAKEN_BYTES

SUBSCRIBES, UNSUBSCRIBES = b"\x01", b"\0"
GREETED = 16
"""Subscriptions that are taken in one turn."""
UNTAKEN_SUBSCRIPTIONS = 256
"""Of one connection; what it says beyond waits at it."""
CURVE_OVERHEAD = 64
"""Bytes by which an encrypted frame may be longer."""
KEYS_LOOK_S = KEYS_LOOK_MS / 1000
READERS_LOOK_S = 0.1
"""How often it is looked who does not take what is published, where much is not taken."""
TRIM_S = 1.0
"""How long after a connection was ended ZeroMQ's own thread has freed what it held."""
ROUNDS, LOOKS, LOOK_S = 6, 20, 0.002
"""How often, and how far apart, in s, it is looked whether there is room again for what is published."""
SLOW_BYTES = 2 * 2**20
"""A subscriber that has taken less in a round holds up all others."""
_NUMBER_BYTES = 8
LAST_VALUE = 98
"""ZMQ_XPUB_MANUAL_LAST_VALUE: what is sent goes to whoever spoke last, alone; pyzmq has no name for it."""


class PublisherSocket:
    """An XPUB at `address`, which `port` reads; new subscribers get the last values from the `board`.

    ZeroMQ asks us what to do with each subscription, applies it to the connection that it believes to have spoken, and
    keeps it in memory whatever we say: who has too many is cut off. A message that is no subscription has it take the
    wrong connection, until all messages that were there are taken; who spoke meanwhile is cut off, and comes back.
    Connections are counted as the router counts its own.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        security: Credentials | None,
        address: str,
        board: TopicTable,
        journal: LogBuffer,
    ) -> None:
        self._say = journal.say
        self._audit = Audit(file_of(settings), journal.warn)
        self._audit.open()
        self._policy = None if settings.policy is None else Policy(settings.policy)
        self.gate = KeyAuthenticator(context, security, journal.warn, self._audit.note) if security else None
        self._board = board
        self._subscribers = Subscribers()
        self._replay = Replay()
        self._debt = Debt()
        self._is_confused = False
        self._next_look = 0.0
        self._next_readers = 0.0
        self._trim_at = math.inf
        self._socket: zmq.Socket[bytes] = context.socket(zmq.XPUB)
        self._socket.xpub_verbose = 1
        self._socket.setsockopt(zmq.XPUB_MANUAL, 1)  # nobody is subscribed before we say so
        self._is_direct = self._has_last_value()
        self._socket.rcvhwm = UNTAKEN_SUBSCRIPTIONS
        self._socket.maxmsgsize = 1 + MAX_TOPIC + CURVE_OVERHEAD
        self._socket.handshake_ivl = math.ceil(settings.handshake_time * 1000)
        self._socket.linger = 0
        self._socket.ipv6 = needs_ipv6(address)
        if security:
            security.serve(self._socket, credentials.DATA)
        port = Port(self._socket, is_gated=security is not None)
        self._attendance = ConnectionMonitor(
            *(context, self._socket, port, self._part),
            *(most_connections(settings), self._audit.note),
        )
        self._socket.bind(address)
        self.port = port

    @property
    def news(self) -> int:
        """A descriptor that becomes readable when connections were made or have ended; `meet` looks at them."""
        return int(self._attendance.news)

    def meet(self) -> None:
        """Count the connections, and end those that are too many."""
        self._attendance.read()

    def _part(self, client: bytes) -> None:
        """A connection has ended that had said something."""
        self._subscribers.leave(int.from_bytes(client))

    def _has_last_value(self) -> bool:
        """Return whether this libzmq can send to one subscriber alone."""
        try:
            self._aim(at_last=True)
            self._aim(at_last=False)
        except zmq.ZMQError:
            return False
        return True

    def _aim(self, *, at_last: bool) -> None:
        """What is sent next goes to whoever spoke last, alone, or from here on to all who have subscribed to it."""
        self._socket.setsockopt(LAST_VALUE, int(at_last))
        if not at_last:  # which has ended both
            self._socket.setsockopt(zmq.XPUB_MANUAL, 1)

    def publish(self, topic: str, frames: list[bytes]) -> None:
        """To all who have subscribed; those who would hold it up are cut off."""
        if self._debt.unsent > MOST_UNTAKEN and not self._make_room():
            self._replay.add([topic])  # what they have left is freed in a moment
            return
        self._replay.drop(topic)
        self._send(frames)

    def _send(self, frames: list[bytes]) -> None:
        self.port.send(frames, self._debt)

    def _make_room(self) -> bool:
        """Cut off who takes next to nothing of what was published; whether there is room then."""
        for _ in range(ROUNDS):
            self._look_at_readers(most_read=SLOW_BYTES)
            if self._has_room_soon():
                return True
        return False

    def _has_room_soon(self) -> bool:
        """Whether what is taken, or was for who was cut off, makes room, for which ZeroMQ's own thread is needed."""
        for _ in range(LOOKS):
            time.sleep(LOOK_S)
            if self._debt.unsent <= MOST_UNTAKEN:
                return True
        return False

    def greet(self, now: float) -> None:
        """Take what subscribers say: give them the last values, or refuse it."""
        for _ in range(GREETED):
            message = self.port.receive()
            if message is None:
                self._is_confused = False
                if self._attendance.is_unsettled:
                    self._attendance.settle()
                return
            number = number_of(self.port.descriptor)
            if number:  # else ZeroMQ tells that a connection has ended, or it has by now
                connection = self._subscribers.meet(self.port.descriptor, number, self.port.user)
                self._attendance.greet(number.to_bytes(_NUMBER_BYTES), self.port.user)
                self._heed(message, connection, now)

    def _heed(self, message: list[bytes], connection: SubscriberConnection, now: float) -> None:
        prefix, is_new = message[0][1:], message[0][:1] == SUBSCRIBES
        if len(message) != 1 or len(prefix) > MAX_TOPIC or message[0][:1] not in (SUBSCRIBES, UNSUBSCRIBES):
            self._is_confused = True
            self._ban([connection], "it sends what is no subscription")
        elif self._is_confused or (self.gate is not None and self.gate.is_banned(connection.user)):
            self._cut(connection)
        elif not is_new:
            self._subscribers.remove(connection, prefix)
            self._socket.setsockopt(zmq.UNSUBSCRIBE, prefix)
        else:
            self._subscribe(connection, prefix, now)

    def _subscribe(self, connection: SubscriberConnection, prefix: bytes, now: float) -> None:
        is_first = self._subscribers.add(connection, prefix)
        if is_first and self._subscribers.is_too_much(connection):
            self._subscribers.sweep(lambda known: number_of(known.descriptor) == known.number)
            if self._subscribers.is_too_much(connection):
                whose = self._subscribers.greediest()
                self._ban(whose, f"of {SUBSCRIPTIONS_KEPT} subscriptions that there may be, most are its")
                if connection in whose:
                    return
        if not self._may_subscribe(connection.user, prefix):
            return
        topics = self._board.topics(prefix) if is_first else []
        first = min(topics, key=len, default="")
        frames = self._board.frames(first) if topics else []
        is_alone = topics and self._is_direct and self._subscribers.may_have(connection, sum(map(len, frames)), now)
        if is_alone:
            self._aim(at_last=True)
        self._socket.setsockopt(zmq.SUBSCRIBE, prefix)
        if is_alone:
            self._send(frames)
            self._aim(at_last=False)
            topics.remove(first)
        self._replay.add(topics)

    def _ban(self, connections: list[SubscriberConnection], why: str) -> None:
        """Cut off connections of one owner, whose key is let in no more until the allow-list changes."""
        user = connections[0].user
        name = self.gate.name_of(user) if self.gate else ANONYMOUS
        self._audit.note("cut off", client=name, reason=why)
        if self.gate is None:
            self._say(f"[WORKER-{os.getpid()}(DATA)] Cut off a subscriber: {why}")
        else:
            self.gate.ban(user)
            connections = self._subscribers.of(user)
        for connection in connections:
            self._cut(connection)

    def _cut(self, connection: SubscriberConnection) -> None:
        """End a connection; a peer that is let in comes back by itself."""
        cut(connection.descriptor, connection.number)
        self._subscribers.forget(connection)
        self._trim_at = time.monotonic() + TRIM_S

    def _may_subscribe(self, user: str, prefix: bytes) -> bool:
        name = self.gate.name_of(user) if self.gate else ANONYMOUS
        topic = prefix.decode(errors="replace")
        if name is not None and (self._policy is None or self._policy.rights(name).may_subscribe(topic)):
            return True
        self._audit.note("refused", client=name, subscribe=shortened(topic, MAX_NAME_LENGTH))
        return False

    def look(self, now: float) -> None:
        """Publish again what new subscribers wait for, and cut off who does not read or is not let in any more."""
        while self._debt.unsent <= MOST_UNTAKEN and (topic := self._replay.next(now)) is not None:
            frames = self._board.frames(topic)
            self._send(frames)
            self._replay.spend(sum(map(len, frames)), now)
        if self._debt.unsent > UNTAKEN_BYTES and now >= self._next_readers:
            self._next_readers = now + READERS_LOOK_S
            self._look_at_readers()
        if self._trim_at <= now:
            self._trim_at = math.inf
            trim_memory()
        if self.gate is not None and now >= self._next_look:
            self._next_look = now + KEYS_LOOK_S
            self._audit.summarise(now)
            for key in self.gate.refresh().gone:
                for connection in self._subscribers.of(key):
                    self._cut(connection)

    def _look_at_readers(self, most_read: int | None = None) -> None:
        """Cut off those that have read least since the last look, where that is no more than `most_read` bytes."""
        waiting = []
        for connection in list(self._subscribers.known.values()):
            told = unread(connection.descriptor, connection.number)
            if told is None:
                self._subscribers.forget(connection)
            elif told[0]:
                waiting.append((connection, told[1]))
            else:
                connection.acked = None
        for connection in idlest(waiting, most_read):
            name = self.gate.name_of(connection.user) if self.gate else ANONYMOUS
            self._audit.note("cut off", client=name, reason="it does not read what is published")
            self._say(
                f"[WORKER-{os.getpid()}(DATA)] Cut off a subscriber that does not read: {name or 'without a key'}"
            )
            self._cut(connection)

    def due(self, now: float) -> float:
        """In how many s to `look`; infinite where nothing is to be seen."""
        dues = [self._replay.due(now) if self._debt.unsent <= MOST_UNTAKEN else READERS_LOOK_S]
        if self._debt.unsent > UNTAKEN_BYTES:
            dues.append(self._next_readers - now)
        if self._trim_at < math.inf:
            dues.append(self._trim_at - now)
        if self.gate is not None:
            dues.append(self._next_look - now)
        return max(0.0, min(dues))

    def close(self) -> None:
        """Close the socket, and the gate."""
        self._attendance.close()
        self._socket.close()
        if self.gate:
            self.gate.stop()
