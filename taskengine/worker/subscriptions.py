"""The subscriptions at a data worker: by connection and owner, and whether they are too many. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from taskengine.protocol.limits import MAX_CLIENTS
from taskengine.protocol.publications import BINARY_TOPICS
from taskengine.worker.tuning import MAX_SUBSCRIPTIONS, REPLAY_RATE

BURST_S = 0.05
"""Last values may be sent so much ahead of REPLAY_RATE, so that small ones do not wait for each other."""


class SubscriberConnection:
    """A subscriber's connection: its descriptor, the number of its socket, which is unique, and its `user`.

    `user` is its key, "" if clients show no keys.
    """

    __slots__ = ("acked", "acked_before", "descriptor", "number", "prefixes", "user")

    def __init__(self, descriptor: int, number: int, user: str) -> None:
        self.descriptor = descriptor
        self.number = number
        self.user = user
        self.prefixes: set[bytes] = set()
        self.acked: int | None = None
        """The bytes that it had acknowledged at the last look, None if nothing waited for it then."""
        self.acked_before: int | None = None
        """The bytes that it had acknowledged when much began to wait, None if nothing waited for it then."""


class Subscribers:
    """The connections that have sent something, with their subscriptions, allowed or not: ZeroMQ keeps them all.

    The owner of a connection is its key, or without keys the connection itself. An owner may have half of
    MAX_SUBSCRIPTIONS.
    """

    def __init__(self) -> None:
        self.known: dict[int, SubscriberConnection] = {}
        self._shares: Counter[tuple[str, int]] = Counter()
        self._count = 0
        self._replayed_at: dict[tuple[str, int], float] = {}
        """When each owner will have received its last values at REPLAY_RATE."""
        self._wishes: dict[str, tuple[bool, bool]] = {}

    def wishes(self, topic: str) -> tuple[bool, bool]:
        """Return whether some connection may want a topic in JSON, and whether one may want it in binary form."""
        found = self._wishes.get(topic)
        if found is None:
            text, binary = topic.encode(), BINARY_TOPICS + topic.encode()
            prefixes = set().union(*(connection.prefixes for connection in self.known.values()))
            is_text = any(map(text.startswith, prefixes))
            found = self._wishes[topic] = is_text, any(prefix and binary.startswith(prefix) for prefix in prefixes)
        return found

    def may_replay(self, connection: SubscriberConnection, size: int, now: float) -> bool:
        """Return whether the connection's owner may get `size` bytes of last values now; if so, they count."""
        owner = _owner(connection)
        if self._replayed_at.get(owner, now) > now:
            return False
        if len(self._replayed_at) >= MAX_CLIENTS:
            self._replayed_at = {other: at for other, at in self._replayed_at.items() if at > now}
        self._replayed_at[owner] = now + size / REPLAY_RATE
        return True

    def meet(self, descriptor: int, number: int, user: str) -> SubscriberConnection:
        """Return the connection of this descriptor; a new one if the descriptor has been used again."""
        connection = self.known.get(descriptor)
        if connection is None or (connection.number, connection.user) != (number, user):
            if connection is not None:
                self.forget(connection)
            connection = self.known[descriptor] = SubscriberConnection(descriptor, number, user)
        return connection

    def add(self, connection: SubscriberConnection, prefix: bytes) -> bool:
        """Add a subscription; return whether it is new. Those of a connection that was forgotten do not count."""
        if prefix in connection.prefixes or self.known.get(connection.descriptor) is not connection:
            return False
        connection.prefixes.add(prefix)
        self._count_for(connection, 1)
        return True

    def remove(self, connection: SubscriberConnection, prefix: bytes) -> None:
        """Remove a subscription."""
        if prefix in connection.prefixes:
            connection.prefixes.remove(prefix)
            self._count_for(connection, -1)

    def _count_for(self, connection: SubscriberConnection, subscriptions: int) -> None:
        self._wishes.clear()
        self._count += subscriptions
        self._shares[_owner(connection)] += subscriptions

    def of(self, user: str) -> list[SubscriberConnection]:
        """Return the connections of a key."""
        return [connection for connection in self.known.values() if connection.user == user]

    def forget(self, connection: SubscriberConnection) -> None:
        """Forget a connection that is closed. May be called twice."""
        if self.known.get(connection.descriptor) is connection:
            del self.known[connection.descriptor]
            self._count_for(connection, -len(connection.prefixes))
            self._shares += Counter()  # without those that have none

    def leave(self, number: int) -> None:
        """Forget the connection with this number: it has ended."""
        for connection in [each for each in self.known.values() if each.number == number]:
            self.forget(connection)

    def sweep(self, lives: Callable[[SubscriberConnection], bool]) -> None:
        """Forget the connections for which `lives` is false."""
        for connection in [each for each in self.known.values() if not lives(each)]:
            self.forget(connection)

    def has_too_many(self, connection: SubscriberConnection) -> bool:
        """Return whether there are too many subscriptions, of this connection's owner or in all."""
        return self._shares[_owner(connection)] > MAX_SUBSCRIPTIONS // 2 or self._count > MAX_SUBSCRIPTIONS

    def greediest(self) -> list[SubscriberConnection]:
        """Return the connections of the owner with most subscriptions."""
        [(owner, _)] = self._shares.most_common(1) or [(("", 0), 0)]
        return [connection for connection in self.known.values() if _owner(connection) == owner]


def _owner(connection: SubscriberConnection) -> tuple[str, int]:
    return (connection.user, 0) if connection.user else ("", connection.number)


def idlest(
    looked: Iterable[tuple[SubscriberConnection, int]], most_read: int | None = None
) -> list[SubscriberConnection]:
    """Return the connections that have read least since much began to wait.

    `looked` has the connections that something waits for, each with the bytes that it has acknowledged by now. With
    `most_read` only those are judged that have read no more bytes than that since the last look, when something must
    have waited for them too. A reader that pauses for a moment has thus read more than one that takes nothing.
    """
    progress = []
    for connection, acked in looked:
        if connection.acked is None or connection.acked_before is None:
            connection.acked_before = acked
        elif most_read is None or acked - connection.acked <= most_read:
            progress.append((acked - connection.acked_before, connection))
        connection.acked = acked
    least = min((read for read, _ in progress), default=0)
    return [connection for read, connection in progress if read == least]


class Replay:
    """Topics whose last values are sent again, to all their subscribers: at most REPLAY_RATE bytes a second."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._next = float("-inf")

    def add(self, topics: Iterable[str]) -> None:
        """Add topics to send again."""
        self._waiting |= dict.fromkeys(topics)

    def drop(self, topic: str) -> None:
        """Drop a topic that was published just now."""
        self._waiting.pop(topic, None)

    def next(self, now: float) -> str | None:
        """Return a topic to send again, None if there is none or it is too early; then call `spend`."""
        if not self._waiting or self._next > now + BURST_S:
            return None
        topic = next(iter(self._waiting))
        del self._waiting[topic]
        return topic

    def spend(self, size: int, now: float) -> None:
        """Count bytes that were sent again."""
        self._next = max(self._next, now) + size / REPLAY_RATE

    def due(self, now: float) -> float:
        """Return in how many s the next topic is due; infinity for none."""
        return max(0.0, self._next - BURST_S - now) if self._waiting else float("inf")
