"""Topics: which data worker owns one, its last value, and its publications as frames. Pure."""

from __future__ import annotations

import zlib
from collections import Counter
from typing import Any, NamedTuple

import msgspec

from taskengine import _fastpath
from taskengine.arrays import listed
from taskengine.errors import BadArguments, Overloaded, TaskFailed
from taskengine.wire import DATA_LANES, LAST_BYTES, SEED_VERSION, TOPICS_KEPT

ENGINE, SOURCE, TASK, CLIENT = "engine", "source", "task", "client"
"""Who publishes; a client that shows a key is told with its name, `client:NAME`."""
NO_DATA_WORKERS = "this engine runs no data worker (DATA_WORKERS is 0)"
_encode = msgspec.json.Encoder(enc_hook=listed).encode


def owner(topic: str, data_workers: int) -> int:
    """The number, from 0, of the data worker that owns the topic."""
    return zlib.crc32(topic.encode()) % data_workers


def data_lane(number: int) -> str:
    """The lane in which data worker `number` alone serves."""
    return f"{DATA_LANES}{number}"


def lane_of(topic: str, data_workers: int) -> str:
    """The lane that serves the topic. Raises Overloaded where the engine runs no data worker."""
    if not data_workers:
        raise Overloaded(NO_DATA_WORKERS, retry_after=None)
    return data_lane(owner(topic, data_workers))


def publisher_of(client: str) -> str:
    """How a publication names a client, "" where it shows no key."""
    return f"{CLIENT}:{client}" if client else CLIENT


class _Last(NamedTuple):
    """The last publication of a topic: its frames, its value for whoever asks, its number, whose it is and its size."""

    frames: list[bytes]
    value: bytes | BadArguments
    number: int
    publisher: str
    size: int


_NOTHING = _Last([], b"", 0, "", 0)


class Board:
    """The last publication of each topic of one data worker, whose `name` and machine's `boot` stand in their META.

    Those of one client take no more than half of what there is room for.
    """

    def __init__(self, name: str, boot: int = 0) -> None:
        self._name = name
        self._boot = boot
        self._last: dict[str, _Last] = {}
        self._size = 0
        self._topics: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()

    def publish(self, topic: str, value: Any, now: float, publisher: str = ENGINE, clock: int = 0) -> list[bytes]:
        """Keep the value and give the frames `[topic, META, DATA]`.

        `now` is when it was made by the wall clock, in s, and `clock` by the engine's, in ns, 0 where nobody knows.

        Raises Overloaded where there is no room for it among the last values, TypeError for a value that JSON cannot
        hold.
        """
        known = self._last.get(topic, _NOTHING)
        meta = {
            "id": self._name,
            "role": "publisher",
            "version": SEED_VERSION,
            "type": "PUB",
            "pack": now,
            "length": 1,
            "serial": topic,
            "part": known.number + 1,
            "size": 1,
            "publisher": publisher,
            "clock": clock,
            "boot": self._boot,
        }
        frames = [topic.encode(), _encode(meta), _encode({"size": 1, "data": value, "pack": now})]
        packed = _packed(value)
        size = sum(map(len, frames)) + (len(packed) if isinstance(packed, bytes) else 0)
        self._keep(topic, known, _Last(frames, packed, known.number + 1, publisher, size))
        return frames

    def _keep(self, topic: str, known: _Last, last: _Last) -> None:
        owner, is_other = last.publisher, last.publisher != known.publisher
        mine = 0 if is_other else known.size
        share = 2 if owner.startswith(CLIENT) else 1
        if self._topics[owner] + is_other > TOPICS_KEPT // share or len(self._last) + (not known.frames) > TOPICS_KEPT:
            text = f"this data worker keeps {TOPICS_KEPT // share} topics of {owner} already"
            raise Overloaded(text, retry_after=None, in_flight=self._topics[owner], limit=TOPICS_KEPT // share)
        most, used = LAST_BYTES // share, self._sizes[owner] - mine
        if used + last.size > most or self._size - known.size + last.size > LAST_BYTES:
            text = f"this data worker keeps {used} bytes of last values of {owner}, and {most} at most"
            raise Overloaded(text, retry_after=None, in_flight=used, limit=most)
        if known.frames:
            self._topics[known.publisher] -= 1
            self._sizes[known.publisher] -= known.size
        self._topics[owner] += 1
        self._sizes[owner] += last.size
        self._size += last.size - known.size
        self._last[topic] = last

    def latest(self, topic: str) -> bytes:
        """The last value, in MessagePack.

        Raises TaskFailed, type LookupError, where there is none yet, BadArguments for one that MessagePack cannot hold.
        """
        if topic not in self._last:
            raise TaskFailed(f"nothing was published on topic {topic!r} yet", type="LookupError")
        value = self._last[topic].value
        if isinstance(value, BadArguments):
            raise value
        return value

    def frames(self, topic: str) -> list[bytes]:
        """The last publication of a topic that has one."""
        return self._last[topic].frames

    def topics(self, prefix: bytes) -> list[str]:
        """The topics of which a new subscriber to `prefix` asked for the last publication."""
        return [topic for topic, last in self._last.items() if last.frames[0].startswith(prefix)]


def _packed(value: Any) -> bytes | BadArguments:
    try:
        return _fastpath.encode(value)
    except BadArguments as error:  # which whoever asks for it is told
        return error
