"""Subscriptions of the blocking client: values of a topic as they are published."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from taskengine.client.connection import local_time
from taskengine.client.receiver import Receiver
from taskengine.client.samples import WAITING, Ages, Backlog, Publication, Sample, SubscriptionFilter
from taskengine.errors import BadArguments, Overloaded, ProtocolError, TaskTimeout
from taskengine.protocol.messages import Info
from taskengine.protocol.release import lacks
from taskengine.security.keys import Membership

BINARY = "publications"
"""The capability of an engine that publishes values as they are, too."""


def reachable(data_addresses: Sequence[str], engine: str) -> list[str]:
    """Return the data addresses in a form that a client of the address `engine` can connect to.

    An engine may bind all interfaces. Raises Overloaded if there are none.
    """
    if not data_addresses:
        raise Overloaded("this engine runs no data worker (DATA_WORKERS is 0)", retry_after=None)
    host = engine.removeprefix("tcp://").rpartition(":")[0]
    return [address.replace("//0.0.0.0:", f"//{host}:").replace("//[::]:", f"//{host}:") for address in data_addresses]


class Wish:
    """A subscriber's request: a topic, and at most so many samples `waiting`, or only the `newest`.

    With `binary` values come as they are, and not in JSON. Raises BadArguments.
    """

    def __init__(self, topic: str, waiting: int = WAITING, *, newest: bool = False, binary: bool = False) -> None:
        if not isinstance(topic, str):
            raise BadArguments(f"a topic is text, not {topic!r}", name="topic")
        if not isinstance(waiting, int) or isinstance(waiting, bool) or waiting < 1:
            raise BadArguments(f"waiting is a positive number of samples, not {waiting!r}", name="waiting")
        if not isinstance(newest, bool):
            raise BadArguments(f"newest is True or False, not {newest!r}", name="newest")
        if not isinstance(binary, bool):
            raise BadArguments(f"binary is True or False, not {binary!r}", name="binary")
        self._is_binary = binary
        self.feed = SubscriptionFilter(topic, binary=binary)
        self._backlog = Backlog(waiting, newest=newest)

    def addresses(self, engine: Info, address: str) -> list[str]:
        """Return where the engine at `address` publishes.

        Raises Overloaded if it runs no data worker, ProtocolError if it is older than binary publications, which are
        wanted.
        """
        if self._is_binary and BINARY not in engine.capabilities:
            raise ProtocolError(lacks(engine.release, "publishes values in JSON alone"))
        return reachable(engine.data_addresses, address)

    def receive(self, addresses: Sequence[str], membership: Membership | None) -> Receiver:
        """Begin to receive the topic."""
        return Receiver(addresses, self.feed, self._backlog, membership)


class Subscription:
    """Iterates over samples; for one thread. Close it, or use it in `with`; `close` ends also a `get` that waits."""

    def __init__(
        self, addresses: Sequence[str], wish: Wish, ages: Ages | None = None, membership: Membership | None = None
    ) -> None:
        self._ages = ages
        self._prefix = wish.feed.prefix
        self._receiver = wish.receive(addresses, membership)
        self._end = weakref.finalize(self, self._receiver.close)

    def get(self, timeout: float | None = None) -> Sample:
        """Return the next sample. Raises TaskTimeout after `timeout` s."""
        publication = self._receiver.take(None if timeout is None else max(0.0, timeout))
        if publication is None:
            raise TaskTimeout(f"nothing was published on {self._prefix!r} in {timeout:g} s", seconds=timeout)
        return aged(publication, self._ages)

    @property
    def dropped(self) -> int:
        """The number of publications that gave way to newer ones before they were handed out, here or on their way.

        Counted are those between the first and the last that came, of each topic and each of the engine's publishers.
        """
        return self._receiver.dropped

    def __iter__(self) -> Iterator[Sample]:
        while True:
            yield self.get()

    def close(self) -> None:
        """Close the socket. May be called twice."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def aged(publication: Publication, ages: Ages | None) -> Sample:
    """Return the sample with its age now. Raises ProtocolError."""
    return publication.sample(ages.of(publication, local_time()) if ages else None)
