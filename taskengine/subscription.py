"""Values of a topic as they are published, in the client."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from taskengine.connection import local_time
from taskengine.errors import BadArguments, Overloaded, TaskTimeout
from taskengine.keys import Membership
from taskengine.receiver import Receiver
from taskengine.samples import WAITING, Ages, Backlog, Feed, Publication, Sample


def reachable(data_addresses: Sequence[str], engine: str) -> list[str]:
    """The data addresses as a client of the address `engine` can connect to them: an engine may bind all interfaces.

    Raises Overloaded where there are none.
    """
    if not data_addresses:
        raise Overloaded("this engine runs no data worker (DATA_WORKERS is 0)", retry_after=None)
    host = engine.removeprefix("tcp://").rpartition(":")[0]
    return [address.replace("//0.0.0.0:", f"//{host}:").replace("//[::]:", f"//{host}:") for address in data_addresses]


class Wish:
    """What a subscriber wants: a topic, of which at most so many samples `waiting`, or the `newest` alone.

    Raises BadArguments.
    """

    def __init__(self, topic: str, waiting: int = WAITING, *, newest: bool = False) -> None:
        if not isinstance(topic, str):
            raise BadArguments(f"a topic is text, not {topic!r}", name="topic")
        if not isinstance(waiting, int) or isinstance(waiting, bool) or waiting < 1:
            raise BadArguments(f"waiting is a positive number of samples, not {waiting!r}", name="waiting")
        if not isinstance(newest, bool):
            raise BadArguments(f"newest is True or False, not {newest!r}", name="newest")
        self.feed = Feed(topic)
        self._backlog = Backlog(waiting, newest=newest)

    def receive(self, addresses: Sequence[str], membership: Membership | None) -> Receiver:
        """Begin to receive it."""
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
        """The next sample. Raises TaskTimeout after `timeout` s."""
        publication = self._receiver.take(None if timeout is None else max(0.0, timeout))
        if publication is None:
            raise TaskTimeout(f"nothing was published on {self._prefix!r} in {timeout:g} s", seconds=timeout)
        return aged(publication, self._ages)

    @property
    def dropped(self) -> int:
        """How many publications were not handed out, since newer ones took their place, here or on their way.

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
    """The sample as it is handed out now. Raises ProtocolError."""
    return publication.sample(ages.of(publication, local_time()) if ages else None)
