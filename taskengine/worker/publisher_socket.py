"""The socket on which a data worker publishes, and the limits and rights of its subscribers."""

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
from taskengine.protocol.publications import BINARY_TOPICS, TEXT_STARTS, text_prefixes
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
from taskengine.worker.tuning import MAX_SUBSCRIPTIONS, MAX_UNTAKEN_BYTES, SOFT_UNTAKEN_BYTES

SUBSCRIBES, UNSUBSCRIBES = b"\x01", b"\0"
TURN_SUBSCRIPTIONS = 16
"""The most subscriptions that are handled in one turn."""
MAX_UNREAD_SUBSCRIPTIONS = 256
"""The most messages of a connection that wait here; more wait at the subscriber."""
CURVE_OVERHEAD = 64
"""The most bytes that encryption adds to a frame."""
KEYS_LOOK_S = KEYS_LOOK_MS / 1000
READERS_LOOK_S = 0.1
"""The pause between two looks for subscribers that do not read, while much is unread."""
TRIMS_S = 1.0, 5.0
"""Times, in s, after which ZeroMQ's own thread has freed the memory of an ended connection; later on a busy machine."""
ROUNDS, LOOKS, LOOK_S = 6, 20, 0.002
"""How often `publish` cuts off slow subscribers, how often it then looks for room, and the pause in s between looks."""
SLOW_BYTES = 2 * 2**20
"""A subscriber that reads no more bytes in a round delays all others, and is cut off."""
_NUMBER_BYTES = 8
LAST_VALUE = 98
"""ZMQ_XPUB_MANUAL_LAST_VALUE: messages go to the last sender alone. pyzmq has no name for it."""


class PublisherSocket:
    """An XPUB at `address`, which `port` reads; new subscribers get the last values of `topics`.

    ZeroMQ asks what to do with each subscription, applies the answer to the connection that it takes for the last
    sender, and keeps each subscription in memory, refused or not: a connection with too many is cut off. A message that
    is no subscription makes ZeroMQ take a wrong connection for the last sender, until all waiting messages are read.
    Connections that sent one meanwhile are cut off, and connect again. Connections are counted as at the router.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        security: Credentials | None,
        address: str,
        topics: TopicTable,
        log: LogBuffer,
    ) -> None:
        self._warn = log.warn
        self._audit = Audit(file_of(settings), log.warn)
        self._audit.open()
        self._policy = None if settings.policy is None else Policy(settings.policy)
        self.authenticator = KeyAuthenticator(context, security, log.warn, self._audit.note) if security else None
        self._topics = topics
        self._subscribers = Subscribers()
        self._replay = Replay()
        self._backlog = Debt()
        self._is_out_of_step = False
        self._is_behind = False
        self._next_look = 0.0
        self._next_readers = 0.0
        self._trims: list[float] = []
        self._socket: zmq.Socket[bytes] = context.socket(zmq.XPUB)
        self._socket.xpub_verbose = 1
        self._socket.setsockopt(zmq.XPUB_MANUAL, 1)  # nobody is subscribed before we say so
        self._is_direct = self._has_last_value()
        self._socket.rcvhwm = MAX_UNREAD_SUBSCRIPTIONS
        self._socket.maxmsgsize = 1 + len(BINARY_TOPICS) + MAX_TOPIC + CURVE_OVERHEAD
        self._socket.handshake_ivl = math.ceil(settings.handshake_time * 1000)
        self._socket.linger = 0
        self._socket.ipv6 = needs_ipv6(address)
        if security:
            security.serve(self._socket, credentials.DATA)
        port = Port(self._socket, is_gated=security is not None)
        self._connections = ConnectionMonitor(
            *(context, self._socket, port, self._on_disconnect),
            *(most_connections(settings), self._audit.note),
        )
        self._socket.bind(address)
        self.port = port

    @property
    def news(self) -> int:
        """A descriptor that is readable when connections have begun or ended, for `handle_connections`."""
        return int(self._connections.news)

    def handle_connections(self) -> None:
        """Count connections, and end those that are too many."""
        self._connections.read()

    def _on_disconnect(self, client: bytes) -> None:
        """Forget a connection that has ended."""
        self._subscribers.leave(int.from_bytes(client))

    def _has_last_value(self) -> bool:
        """Return whether this libzmq can send to one subscriber alone."""
        try:
            self._send_to_last(at_last=True)
            self._send_to_last(at_last=False)
        except zmq.ZMQError:
            return False
        return True

    def _send_to_last(self, *, at_last: bool) -> None:
        """Have the next message go to the last sender alone, or messages from here on to all their subscribers."""
        self._socket.setsockopt(LAST_VALUE, int(at_last))
        if not at_last:  # ending it has ended ZMQ_XPUB_MANUAL too
            self._socket.setsockopt(zmq.XPUB_MANUAL, 1)

    def publish(self, topic: str) -> None:
        """Publish the last value of a topic to all subscribers; those that would delay the others are cut off."""
        self._mark_readers()
        if self._backlog.unsent > MAX_UNTAKEN_BYTES and not self._make_room():
            self._replay.add([topic])  # memory of subscribers that were cut off is free in a moment
            self._topics.put_off(topic)
            return
        self._replay.drop(topic)
        self._send_last(topic)

    def _send_last(self, topic: str) -> int:
        """Send the last value of a topic in the forms that subscribers want; return its bytes."""
        in_text, in_binary = self._subscribers.wishes(topic)
        messages = [self._topics.frames(topic)] if in_text else []
        messages += [self._topics.binary_frames(topic)] if in_binary else []
        for frames in messages:
            self._send(frames)
        self._topics.was_sent(topic)
        return sum(len(frame) for frames in messages for frame in frames)

    def _send(self, frames: list[bytes]) -> None:
        self.port.send(frames, self._backlog)

    def _make_room(self) -> bool:
        """Cut off subscribers that hardly read; return whether there is room then."""
        has_cut = False
        for _ in range(ROUNDS):
            # a busy machine needs a round more to free what waited for those that were cut off
            has_cut = not has_cut and self._cut_slow_readers(most_read=SLOW_BYTES)
            if self._has_room_soon():
                return True
        return False

    def _has_room_soon(self) -> bool:
        """Return whether there is room soon: ZeroMQ's own thread frees what was read, or was for ended connections."""
        for _ in range(LOOKS):
            time.sleep(LOOK_S)
            if self._backlog.unsent <= MAX_UNTAKEN_BYTES:
                return True
        return False

    def handle_subscriptions(self, now: float) -> None:
        """Read messages of subscribers: accept a subscription and send its last values, or refuse it."""
        for _ in range(TURN_SUBSCRIPTIONS):
            message = self.port.receive()
            if message is None:
                self._is_out_of_step = False
                if self._connections.is_unsettled:
                    self._connections.settle()
                return
            number = number_of(self.port.descriptor)
            if number:  # else the connection has ended
                # first, because it may learn that the connection has ended meanwhile, and have it forgotten
                self._connections.greet(number.to_bytes(_NUMBER_BYTES), self.port.user)
                connection = self._subscribers.meet(self.port.descriptor, number, self.port.user)
                self._handle_subscription(message, connection, now)

    def _handle_subscription(self, message: list[bytes], connection: SubscriberConnection, now: float) -> None:
        prefix, is_new = message[0][1:], message[0][:1] == SUBSCRIBES
        if len(message) != 1 or len(_topic_in(prefix)) > MAX_TOPIC or message[0][:1] not in (SUBSCRIBES, UNSUBSCRIBES):
            self._is_out_of_step = True
            self._ban([connection], "it sent a message that is no subscription")
        elif self._is_out_of_step or (self.authenticator is not None and self.authenticator.is_banned(connection.user)):
            self._cut(connection)
        elif not is_new:
            self._subscribers.remove(connection, prefix)
            left = connection.prefixes
            for each in _in_trie(prefix):
                # ZeroMQ has one entry for a prefix, however many of a connection's subscriptions it stands for
                if each not in left and not (b"" in left and each in TEXT_STARTS):
                    self._socket.setsockopt(zmq.UNSUBSCRIBE, each)
        else:
            self._subscribe(connection, prefix, now)

    def _subscribe(self, connection: SubscriberConnection, prefix: bytes, now: float) -> None:
        is_first = self._subscribers.add(connection, prefix)
        if is_first and self._subscribers.has_too_many(connection):
            self._subscribers.sweep(lambda known: number_of(known.descriptor) == known.number)
            if self._subscribers.has_too_many(connection):
                whose = self._subscribers.greediest()
                self._ban(whose, f"it has most of the {MAX_SUBSCRIPTIONS} subscriptions that a data worker keeps")
                if connection in whose:
                    return
        if not self._may_subscribe(connection.user, prefix):
            return
        topics = self._topics.topics(_topic_in(prefix)) if is_first else []
        first = min(topics, key=len, default="")
        frames = self._last_frames(first, prefix) if topics else []
        is_alone = topics and self._is_direct and self._subscribers.may_replay(connection, sum(map(len, frames)), now)
        if is_alone:
            self._send_to_last(at_last=True)
        for each in _in_trie(prefix):
            self._socket.setsockopt(zmq.SUBSCRIBE, each)
        if is_alone:
            self._send(frames)
            self._send_to_last(at_last=False)
            topics.remove(first)
        self._replay.add(topics)

    def _last_frames(self, topic: str, prefix: bytes) -> list[bytes]:
        """Return the last publication of a topic in the form that a subscription is to."""
        return self._topics.binary_frames(topic) if _is_binary(prefix) else self._topics.frames(topic)

    def _ban(self, connections: list[SubscriberConnection], why: str) -> None:
        """Cut off connections of one owner, and keep its key out until the allow-list changes."""
        user = connections[0].user
        name = self.authenticator.name_of(user) if self.authenticator else ANONYMOUS
        self._audit.note("cut off", client=name, reason=why)
        if self.authenticator is None:
            self._warn(f"[WORKER-{os.getpid()}(DATA)] Cut off a subscriber: {why}")
        else:
            self.authenticator.ban(user)
            connections = self._subscribers.of(user)
        for connection in connections:
            self._cut(connection)

    def _cut(self, connection: SubscriberConnection) -> None:
        """End a connection; an allowed client connects again by itself."""
        cut(connection.descriptor, connection.number)
        self._subscribers.forget(connection)
        self._trims = [time.monotonic() + seconds for seconds in TRIMS_S]

    def _may_subscribe(self, user: str, prefix: bytes) -> bool:
        name = self.authenticator.name_of(user) if self.authenticator else ANONYMOUS
        if self.authenticator is not None and self.authenticator.is_watcher(user):
            return True
        topic = _topic_in(prefix).decode(errors="replace")
        if name is not None and (self._policy is None or self._policy.rights(name).may_subscribe(topic)):
            return True
        self._audit.note("refused", client=name, subscribe=shortened(topic, MAX_NAME_LENGTH))
        return False

    def look(self, now: float) -> None:
        """Send last values again that are due, and cut off subscribers that do not read or are no longer allowed."""
        while self._backlog.unsent <= MAX_UNTAKEN_BYTES and (topic := self._replay.next(now)) is not None:
            self._replay.spend(self._send_last(topic), now)
        if self._backlog.unsent > SOFT_UNTAKEN_BYTES and now >= self._next_readers:
            self._next_readers = now + READERS_LOOK_S
            self._cut_slow_readers()
        if self._trims and self._trims[0] <= now:
            del self._trims[0]
            trim_memory()
        if self.authenticator is not None and now >= self._next_look:
            self._next_look = now + KEYS_LOOK_S
            self._audit.summarise(now)
            for key in self.authenticator.refresh().gone:
                for connection in self._subscribers.of(key):
                    self._cut(connection)

    def _mark_readers(self) -> None:
        """Have subscribers judged by what they read from here on, once much begins to wait for them."""
        was_behind, self._is_behind = self._is_behind, self._backlog.unsent > SOFT_UNTAKEN_BYTES
        if self._is_behind and not was_behind:
            for connection in self._subscribers.known.values():
                connection.acked = None
            idlest(self._waiting_readers())

    def _cut_slow_readers(self, most_read: int | None = None) -> bool:
        """Cut off the subscribers that have read least, and return whether there were any.

        With `most_read` they have read at most so many bytes since the last look.
        """
        slowest = idlest(self._waiting_readers(), most_read)
        for connection in slowest:
            name = self.authenticator.name_of(connection.user) if self.authenticator else ANONYMOUS
            self._audit.note("cut off", client=name, reason="it does not read what is published")
            self._warn(
                f"[WORKER-{os.getpid()}(DATA)] Cut off a subscriber that does not read: {name or 'without a key'}"
            )
            self._cut(connection)
        return bool(slowest)

    def _waiting_readers(self) -> list[tuple[SubscriberConnection, int]]:
        """Return the connections that something waits for, each with the bytes that it has acknowledged."""
        waiting = []
        for connection in list(self._subscribers.known.values()):
            told = unread(connection.descriptor, connection.number)
            if told is None:
                self._subscribers.forget(connection)
            elif told[0]:
                waiting.append((connection, told[1]))
            else:
                connection.acked = None
        return waiting

    def due(self, now: float) -> float:
        """Return in how many s `look` is due; infinity for never."""
        dues = [self._replay.due(now) if self._backlog.unsent <= MAX_UNTAKEN_BYTES else READERS_LOOK_S]
        if self._backlog.unsent > SOFT_UNTAKEN_BYTES:
            dues.append(self._next_readers - now)
        if self._trims:
            dues.append(self._trims[0] - now)
        if self.authenticator is not None:
            dues.append(self._next_look - now)
        return max(0.0, min(dues))

    def close(self) -> None:
        """Close the socket, and the authenticator."""
        self._connections.close()
        self._socket.close()
        if self.authenticator:
            self.authenticator.stop()


def _is_binary(prefix: bytes) -> bool:
    """Return whether a subscription is to binary publications."""
    return prefix.startswith(BINARY_TOPICS)


def _topic_in(prefix: bytes) -> bytes:
    """Return the beginning of topics that a subscription is to, in whatever form."""
    return prefix.removeprefix(BINARY_TOPICS)


def _in_trie(prefix: bytes) -> tuple[bytes, ...]:
    """Return the prefixes by which ZeroMQ is to match a subscription."""
    return (prefix,) if _is_binary(prefix) else text_prefixes(prefix)
