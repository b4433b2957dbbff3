"""Topics: which data worker owns one, its last value, and its publications as frames. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from taskengine.arrays import listed
from taskengine.errors import Overloaded, TaskFailed
from taskengine.wire import DATA_LANES, SEED_VERSION, TOPICS_KEPT

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


class Board:
    """The last publication of each topic of one data worker, whose `name` stands in their META."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: dict[str, tuple[Any, int, list[bytes]]] = {}

    def publish(self, topic: str, value: Any, now: float) -> list[bytes]:
        """Keep the value and give the frames `[topic, META, DATA]`; `now` is the wall clock in s.

        Raises Overloaded when there are TOPICS_KEPT topics already, TypeError for a value that JSON cannot hold.
        """
        known = self._last.get(topic)
        if known is None and len(self._last) >= TOPICS_KEPT:
            raise Overloaded(f"this data worker keeps {TOPICS_KEPT} topics already", retry_after=None)
        number = known[1] + 1 if known else 1
        meta = {
            "id": self._name,
            "role": "publisher",
            "version": SEED_VERSION,
            "type": "PUB",
            "pack": now,
            "length": 1,
            "serial": topic,
            "part": number,
            "size": 1,
        }
        data = {"size": 1, "data": value, "pack": now}
        frames = [topic.encode(), _encode(meta), _encode(data)]
        self._last[topic] = value, number, frames
        return frames

    def latest(self, topic: str) -> Any:
        """The last value. Raises TaskFailed, type LookupError, where there is none yet."""
        if topic not in self._last:
            raise TaskFailed(f"nothing was published on topic {topic!r} yet", type="LookupError")
        return self._last[topic][0]

    def replay(self, prefix: bytes) -> Iterator[list[bytes]]:
        """The last publication of each topic that a new subscriber to `prefix` asked for."""
        return (frames for _, _, frames in self._last.values() if frames[0].startswith(prefix))
