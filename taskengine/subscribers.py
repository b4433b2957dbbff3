"""Who subscribes to what at a data worker: connections, whose they are, and how much of it each has. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from taskengine.wire import CLIENTS_KEPT, REPLAY_RATE, SUBSCRIPTIONS_KEPT

BURST_S = 0.05
"""Small values need not wait for each other."""


class Connection:
    """One of a subscriber: its descriptor, the number of its socket, which no other ever has, and its `user`.

    `user` is its key, "" where there are none.
    """

    __slots__ = ("acked", "descriptor", "number", "prefixes", "user")

    def __init__(self, descriptor: int, number: int, user: str) -> None:
        self.descriptor = descriptor
        self.number = number
        self.user = user
        self.prefixes: set[bytes] = set()
        self.acked: int | None = None
        """What it had acknowledged when it was looked at, and something waited for it."""


class Subscribers:
    """The connections that have said something, and what each has subscribed to, allowed or not: ZeroMQ keeps it all.

    A key, or without keys a connection, has too much with more than half of what there may be in all.
    """

    def __init__(self) -> None:
        self.known: dict[int, Connection] = {}
        self._shares: Counter[tuple[str, int]] = Counter()
        self._count = 0
        self._replayed_at: dict[tuple[str, int], float] = {}
        """By when each owner will have been given its last values, at REPLAY_RATE."""

    def may_have(self, connection: Connection, size: int, now: float) -> bool:
        """Return whether so many bytes of last values are for its owner now, which count from here on."""
        owner = _owner(connection)
        if self._replayed_at.get(owner, now) > now:
            return False
        if len(self._replayed_at) >= CLIENTS_KEPT:
            self._replayed_at = {other: at for other, at in self._replayed_at.items() if at > now}
        self._replayed_at[owner] = now + size / REPLAY_RATE
        return True

    def meet(self, descriptor: int, number: int, user: str) -> Connection:
        """Whoever has said something by this descriptor; another than before where the descriptor is another's now."""
        connection = self.known.get(descriptor)
        if connection is None or (connection.number, connection.user) != (number, user):
            if connection is not None:
                self.forget(connection)
            connection = self.known[descriptor] = Connection(descriptor, number, user)
        return connection

    def add(self, connection: Connection, prefix: bytes) -> bool:
        """It subscribes; whether it had not."""
        if prefix in connection.prefixes:
            return False
        connection.prefixes.add(prefix)
        self._count_for(connection, 1)
        return True

    def remove(self, connection: Connection, prefix: bytes) -> None:
        """It subscribes no more."""
        if prefix in connection.prefixes:
            connection.prefixes.remove(prefix)
            self._count_for(connection, -1)

    def _count_for(self, connection: Connection, subscriptions: int) -> None:
        self._count += subscriptions
        self._shares[_owner(connection)] += subscriptions

    def of(self, user: str) -> list[Connection]:
        """The connections of a key."""
        return [connection for connection in self.known.values() if connection.user == user]

    def forget(self, connection: Connection) -> None:
        """It is closed. May be called twice."""
        if self.known.get(connection.descriptor) is connection:
            del self.known[connection.descriptor]
            self._count_for(connection, -len(connection.prefixes))
            self._shares += Counter()  # without those that have none

    def leave(self, number: int) -> None:
        """The connection with this number has ended."""
        for connection in [each for each in self.known.values() if each.number == number]:
            self.forget(connection)

    def sweep(self, lives: Callable[[Connection], bool]) -> None:
        """Forget those that live no more."""
        for connection in [each for each in self.known.values() if not lives(each)]:
            self.forget(connection)

    def is_too_much(self, connection: Connection) -> bool:
        """Return whether there are more subscriptions than may be, of its owner's or in all."""
        return self._shares[_owner(connection)] > SUBSCRIPTIONS_KEPT // 2 or self._count > SUBSCRIPTIONS_KEPT

    def greediest(self) -> list[Connection]:
        """The connections of whoever has most subscriptions."""
        [(owner, _)] = self._shares.most_common(1) or [(("", 0), 0)]
        return [connection for connection in self.known.values() if _owner(connection) == owner]


def _owner(connection: Connection) -> tuple[str, int]:
    return (connection.user, 0) if connection.user else ("", connection.number)


def idlest(looked: Iterable[tuple[Connection, int]], most_read: int | None = None) -> list[Connection]:
    """Of connections for which something waits, and what each has acknowledged by now, those that read least.

    With `most_read` those are not meant that have read more bytes.

    Those of which nothing is known from the last look are given until the next.
    """
    progress = []
    for connection, acked in looked:
        if connection.acked is not None:
            progress.append((acked - connection.acked, connection))
        connection.acked = acked
    least = min((read for read, _ in progress), default=0)
    if most_read is not None and least > most_read:
        return []
    return [connection for read, connection in progress if read == least]


class Replay:
    """Topics whose last values others than who asked for them get too, and thus seldom: REPLAY_RATE bytes a second."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}
        self._next = float("-inf")

    def add(self, topics: Iterable[str]) -> None:
        """Somebody asked for these."""
        self._waiting |= dict.fromkeys(topics)

    def drop(self, topic: str) -> None:
        """It was published just now."""
        self._waiting.pop(topic, None)

    def next(self, now: float) -> str | None:
        """A topic to publish again, None where there is none or it is too early; `spend` tells what that took."""
        if not self._waiting or self._next > now + BURST_S:
            return None
        topic = next(iter(self._waiting))
        del self._waiting[topic]
        return topic

    def spend(self, size: int, now: float) -> None:
        """So many bytes were published again."""
        self._next = max(self._next, now) + size / REPLAY_RATE

    def due(self, now: float) -> float:
        """In how many s the next is due; infinite where there is none."""
        return max(0.0, self._next - BURST_S - now) if self._waiting else float("inf")
