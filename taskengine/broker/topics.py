"""Topics: which data worker owns one, its last value, and its publications as frames. Pure."""

from __future__ import annotations

import zlib
from collections import Counter
from typing import Any, NamedTuple

import msgspec

from taskengine import _fastpath
from taskengine.errors import BadArguments, Overloaded, TaskFailed
from taskengine.protocol.arrays import listed
from taskengine.protocol.layouts import DATA_LANES, LEGACY_VERSION
from taskengine.protocol.limits import LAST_BYTES, MAX_TOPICS
from taskengine.protocol.publications import (
    BINARY_TOPICS,
    Form,
    PublicationHead,
    encode_head,
    plain_body,
    plain_value,
)

ENGINE, SOURCE, TASK, CLIENT = "engine", "source", "task", "client"
"""The kinds of publisher; a client with a key is named as well, `client:NAME`."""
NO_DATA_WORKERS = "this engine runs no data worker (DATA_WORKERS is 0)"
_encode = msgspec.json.Encoder(enc_hook=listed).encode


def owner(topic: str, data_workers: int) -> int:
    """Return the number, from 0, of the data worker that owns the topic."""
    return zlib.crc32(topic.encode()) % data_workers


def data_lane(number: int) -> str:
    """Return the lane in which data worker `number` alone serves."""
    return f"{DATA_LANES}{number}"


def lane_of(topic: str, data_workers: int) -> str:
    """Return the lane that serves the topic. Raises Overloaded where the engine runs no data worker."""
    if not data_workers:
        raise Overloaded(NO_DATA_WORKERS, retry_after=None)
    return data_lane(owner(topic, data_workers))


def publisher_of(client: str) -> str:
    """Return how a publication names a client, "" where the client shows no key."""
    return f"{CLIENT}:{client}" if client else CLIENT


class _Last(NamedTuple):
    """The last publication of a topic: its head, its value in one form or more, and its size.

    Bytes and arrays of plain numbers are kept as they are, and put into JSON or MessagePack when somebody wants that.
    """

    head: PublicationHead
    body: bytes
    """The value as in a binary publication; empty for a value of form JSON."""
    frames: list[bytes] | None
    """The publication in JSON; None to make it when it is wanted."""
    failure: BadArguments | None
    """Why MessagePack cannot hold the value."""
    size: int


_NOBODY = PublicationHead("", 0, "", 0.0, 0, 0, 0, Form.MSGPACK)
_NOTHING = _Last(_NOBODY, b"", None, None, 0)


class TopicTable:
    """The last publication of each topic of one data worker; its `name` and the machine's `boot` stand in their META.

    The topics of one client take at most half of the room.
    """

    def __init__(self, name: str, boot: int = 0) -> None:
        self._name = name
        self._boot = boot
        self._last: dict[str, _Last] = {}
        self._put_off: set[str] = set()
        self._size = 0
        self._topics: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()

    def publish(self, topic: str, value: Any, now: float, publisher: str = ENGINE, clock: int = 0) -> list[bytes]:
        """Keep the value as `keep` does, and return the frames `[topic, META, DATA]`."""
        self.keep(topic, value, now, publisher, clock)
        return self.frames(topic)

    def keep(self, topic: str, value: Any, now: float, publisher: str = ENGINE, clock: int = 0) -> None:
        """Keep the value as the topic's last one.

        `now` is when it was made by the wall clock, in s, and `clock` by the engine's, in ns, 0 where nobody knows.

        Raises Overloaded where there is no room for it among the last values, TypeError for a value that JSON cannot
        hold.
        """
        known = self._last.get(topic, _NOTHING)
        plain = plain_body(value)
        form, body, failure = (*plain, None) if plain else _packed(value)
        part, dropped = known.head.part + 1, known.head.dropped + (topic in self._put_off)
        head = PublicationHead(self._name, part, publisher, now, clock, self._boot, dropped, form)
        frames = None if plain else _frames(topic, head, value)
        size = len(body) + (sum(map(len, frames)) if frames else len(topic.encode()))
        self._keep(topic, known, _Last(head, body, frames, failure, size))
        self._put_off.discard(topic)

    def put_off(self, topic: str) -> None:
        """Note that the last publication could not be sent yet: the next one counts it as dropped."""
        self._put_off.add(topic)

    def was_sent(self, topic: str) -> None:
        """Note that the last publication was sent after all."""
        self._put_off.discard(topic)

    def _keep(self, topic: str, known: _Last, last: _Last) -> None:
        owner, is_other = last.head.publisher, last.head.publisher != known.head.publisher
        mine = 0 if is_other else known.size
        share = 2 if owner.startswith(CLIENT) else 1
        if self._topics[owner] + is_other > MAX_TOPICS // share or len(self._last) + (known is _NOTHING) > MAX_TOPICS:
            text = f"this data worker keeps {MAX_TOPICS // share} topics of {owner} already"
            raise Overloaded(text, retry_after=None, in_flight=self._topics[owner], limit=MAX_TOPICS // share)
        most, used = LAST_BYTES // share, self._sizes[owner] - mine
        if used + last.size > most or self._size - known.size + last.size > LAST_BYTES:
            text = f"this data worker keeps {used} bytes of last values of {owner}, and {most} at most"
            raise Overloaded(text, retry_after=None, in_flight=used, limit=most)
        if known is not _NOTHING:
            self._topics[known.head.publisher] -= 1
            self._sizes[known.head.publisher] -= known.size
        self._topics[owner] += 1
        self._sizes[owner] += last.size
        self._size += last.size - known.size
        self._last[topic] = last

    def latest(self, topic: str) -> bytes:
        """Return the last value, in MessagePack.

        Raises TaskFailed, type LookupError, where there is none yet, BadArguments for one that MessagePack cannot hold.
        """
        if topic not in self._last:
            raise TaskFailed(f"nothing was published on topic {topic!r} yet", type="LookupError")
        last = self._last[topic]
        if last.failure is not None:
            raise last.failure
        form = last.head.form
        return last.body if form is Form.MSGPACK else _fastpath.encode(plain_value(form, last.body))

    def frames(self, topic: str) -> list[bytes]:
        """Return the last publication of a topic that has one, in JSON."""
        last = self._last[topic]
        return last.frames or _frames(topic, last.head, plain_value(last.head.form, last.body))

    def binary_frames(self, topic: str) -> list[bytes]:
        """Return the last publication of a topic that has one, in binary form."""
        last = self._last[topic]
        body = last.body
        if last.frames is not None and last.head.form is Form.JSON:
            body = _value_in(last.frames[2])
        return [BINARY_TOPICS + topic.encode(), encode_head(last.head), body]

    def topics(self, prefix: bytes) -> list[str]:
        """Return the topics of which a new subscriber to `prefix` asked for the last publication."""
        return [topic for topic in self._last if topic.encode().startswith(prefix)]


def _packed(value: Any) -> tuple[Form, bytes, BadArguments | None]:
    try:
        return Form.MSGPACK, _fastpath.encode(value), None
    except BadArguments as error:  # a client that asks for the value gets this error
        return Form.JSON, b"", error


def _frames(topic: str, head: PublicationHead, value: Any) -> list[bytes]:
    meta = {
        "id": head.id,
        "role": "publisher",
        "version": LEGACY_VERSION,
        "type": "PUB",
        "pack": head.pack,
        "length": 1,
        "serial": topic,
        "part": head.part,
        "size": 1,
        "publisher": head.publisher,
        "clock": head.clock,
        "boot": head.boot,
        "dropped": head.dropped,
    }
    return [topic.encode(), _encode(meta), _encode({"size": 1, "data": value, "pack": head.pack})]


class _JsonData(msgspec.Struct):
    data: msgspec.Raw


_decode_data = msgspec.json.Decoder(_JsonData).decode


def _value_in(data: bytes) -> bytes:
    """Return the value in a DATA frame, in JSON."""
    return bytes(_decode_data(data).data)
