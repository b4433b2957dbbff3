"""Values of a topic as they are published, in the client."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import msgspec
import zmq

from taskengine.errors import Overloaded, ProtocolError, TaskTimeout
from taskengine.gate import introduce
from taskengine.hosts import needs_ipv6
from taskengine.keys import Membership


def reachable(data_addresses: Sequence[str], engine: str) -> list[str]:
    """The data addresses as a client of the address `engine` can connect to them: an engine may bind all interfaces.

    Raises Overloaded where there are none.
    """
    if not data_addresses:
        raise Overloaded("this engine runs no data worker (DATA_WORKERS is 0)", retry_after=None)
    host = engine.removeprefix("tcp://").rpartition(":")[0]
    return [address.replace("//0.0.0.0:", f"//{host}:").replace("//[::]:", f"//{host}:") for address in data_addresses]


class Sample(msgspec.Struct, frozen=True):
    """One publication: its value, when it was made (wall clock, s), its number on the topic, and who made it.

    `publisher` is `source`, `task`, `engine`, `client`, or of a client with a key `client:NAME`; "" where an older
    engine does not tell.
    """

    topic: str
    value: Any
    time: float
    number: int
    publisher: str = ""


class _Meta(msgspec.Struct):
    id: str
    pack: float
    part: int
    publisher: str = ""


class _Data(msgspec.Struct):
    data: Any


_decode_meta = msgspec.json.Decoder(_Meta).decode
_decode_data = msgspec.json.Decoder(_Data).decode


class Feed:
    """Which publications a subscriber to `topic` wants: its own topic, and none twice. Pure."""

    def __init__(self, topic: str) -> None:
        self._whole = not topic.endswith("*")
        self.prefix = topic if self._whole else topic[:-1]
        self._seen: dict[str, tuple[str, int]] = {}

    def take(self, frames: Sequence[bytes]) -> Sample | None:
        """The sample in a publication, or None. Raises ProtocolError for what is no publication."""
        try:
            topic, meta, data = frames[0].decode(), _decode_meta(frames[1]), _decode_data(frames[2])
        except (IndexError, ValueError, msgspec.MsgspecError) as error:
            raise ProtocolError(f"not a publication: {error}") from None
        if self._whole and topic != self.prefix:
            return None
        # a data worker repeats its last value whenever somebody subscribes
        publisher, number = self._seen.get(topic, ("", 0))
        if meta.id == publisher and meta.part <= number:
            return None
        self._seen[topic] = meta.id, meta.part
        return Sample(topic, data.data, meta.pack, meta.part, meta.publisher)


class Subscription:
    """Iterates over samples; for one thread. Close it, or use it in `with`."""

    def __init__(self, addresses: Sequence[str], topic: str, membership: Membership | None = None) -> None:
        self._feed = Feed(topic)
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.ipv6 = any(map(needs_ipv6, addresses))
        introduce(self._socket, membership)
        self._socket.subscribe(self._feed.prefix)
        for address in addresses:
            self._socket.connect(address)

    def get(self, timeout: float | None = None) -> Sample:
        """The next sample. Raises TaskTimeout after `timeout` s."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else math.ceil(max(0.0, end - time.monotonic()) * 1000)
            if not self._socket.poll(left):
                raise TaskTimeout(f"nothing was published on {self._feed.prefix!r} in {timeout:g} s", seconds=timeout)
            sample = self._feed.take(self._socket.recv_multipart())
            if sample is not None:
                return sample

    def __iter__(self) -> Iterator[Sample]:
        while True:
            yield self.get()

    def close(self) -> None:
        """Close the socket. May be called twice."""
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
