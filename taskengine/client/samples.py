"""A subscriber's publications: filters them, keeps them until they are taken, and counts the lost ones. Pure.

A publication has a number on its topic. By that number repeated publications are recognized, and missing ones are
counted, which shows how much a slow network or a slow subscriber loses.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from taskengine import _fastpath
from taskengine.client.clock import Estimate
from taskengine.errors import ProtocolError
from taskengine.protocol.publications import BINARY_TOPICS, Form, PublicationHead, decode_head, plain_value

WAITING: Final = 2000
"""Publications that wait for a subscriber that does not take them, unless it says how many,"""
WAITING_BYTES: Final = 64 * 2**20
"""and the most bytes of them; one may be larger."""
ASK_NS: Final = 10**10
"""The shortest time, in ns, between two requests for the engine's clock."""
NS: Final = 10**9


class Sample(msgspec.Struct, frozen=True):
    """One publication: its value, when it was made (wall clock, s), its number on the topic, and who made it.

    `publisher` is `source`, `task`, `engine`, `client`, or `client:NAME` for a client with a key; "" if an older engine
    does not say. `age` is how many s before it was handed out it was made, by the engine's clock, with an error of at
    most half a round trip; None if that is not known, for example from an older engine. `dropped` is how many
    publications of the topic gave way to newer ones in the engine since its data worker began. `clock` is when it was
    made by the engine's clock, in ns since the machine's `boot`; 0 if an older engine does not say.
    """

    topic: str
    value: Any
    time: float
    number: int
    publisher: str = ""
    age: float | None = None
    dropped: int = 0
    clock: int = 0
    boot: int = 0


class _Meta(msgspec.Struct):
    id: str
    pack: float
    part: int
    publisher: str = ""
    clock: int = 0
    boot: int = 0
    dropped: int = 0


class _Data(msgspec.Struct):
    data: Any


_decode_meta = msgspec.json.Decoder(_Meta).decode
_decode_data = msgspec.json.Decoder(_Data).decode


class Publication(NamedTuple):
    """A publication whose value has not been decoded yet."""

    topic: str
    meta: _Meta | PublicationHead
    data: bytes

    def sample(self, age: float | None = None) -> Sample:
        """Return the publication with its value. Raises ProtocolError if it is malformed."""
        meta = self.meta
        try:
            value = _value(meta.form, self.data) if isinstance(meta, PublicationHead) else _decode_data(self.data).data
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise _none(error) from None
        made = meta.dropped, meta.clock, meta.boot
        return Sample(self.topic, value, meta.pack, meta.part, meta.publisher, age, *made)


def _value(form: Form, body: bytes) -> Any:
    """Return the value in the BODY of a binary publication. Raises ProtocolError, msgspec.MsgspecError."""
    if form is Form.MSGPACK:
        return _fastpath.unpack(body, 1, bytes)[0]
    return msgspec.json.decode(body) if form is Form.JSON else plain_value(form, body)


class SubscriptionFilter:
    """Selects the publications for a subscriber to `topic`: its own topic, and none twice.

    `start` is the beginning of the first frames of publications in the form that it wants.
    """

    def __init__(self, topic: str, *, binary: bool = False) -> None:
        self._whole = not topic.endswith("*")
        self._decode = decode_head if binary else _decode_meta
        self._mark = BINARY_TOPICS if binary else b""
        self.prefix = topic if self._whole else topic[:-1]
        self.start = self._mark + self.prefix.encode()
        self._seen: dict[str, tuple[str, int]] = {}
        self.missed = 0
        """How many publications between the first and the last one are missing."""

    def read(self, frames: Sequence[bytes]) -> Publication | None:
        """Return the publication in a message, None if it is not wanted. Raises ProtocolError if it is malformed."""
        try:
            topic = frames[0].removeprefix(self._mark).decode()
            meta, data = self._decode(frames[1]), frames[2]
        except (IndexError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise _none(error) from None
        if self._whole and topic != self.prefix:
            return None
        # a data worker repeats its last value for every new subscriber
        publisher, number = self._seen.get(topic, ("", 0))
        if meta.id == publisher:
            if meta.part <= number:
                return None
            self.missed += meta.part - number - 1
        self._seen[topic] = meta.id, meta.part
        return Publication(topic, meta, data)

    def take(self, frames: Sequence[bytes]) -> Sample | None:
        """Return the sample in a message, without its age, None if it is not wanted. Raises ProtocolError."""
        publication = self.read(frames)
        return None if publication is None else publication.sample()


def _none(error: Exception) -> ProtocolError:
    return ProtocolError(f"not a publication: {error}")


class Backlog:
    """Publications that were not taken yet, in the order of arrival: at most `most`; the oldest are dropped.

    With `newest` only the newest of each topic is kept, in the place of the one before, so that topics with many
    publications do not delay others.
    """

    def __init__(self, most: int = WAITING, *, newest: bool = False) -> None:
        self._most = most
        self._newest = newest
        self._numbers = itertools.count()
        self._waiting: OrderedDict[str | int, Publication | ProtocolError] = OrderedDict()
        self._bytes = 0
        self.dropped = 0
        """How many publications gave way to newer ones."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Publication | ProtocolError) -> None:
        """Add a publication, or the error of a malformed one."""
        key = item.topic if self._newest and isinstance(item, Publication) else next(self._numbers)
        before = self._waiting.get(key)
        if before is not None:
            self.dropped += 1
            self._bytes -= _size(before)
        self._waiting[key] = item
        self._bytes += _size(item)
        while len(self._waiting) > 1 and not self._newest and self._is_full():
            self._remove_oldest()
            self.dropped += 1

    def take(self) -> Publication | None:
        """Return the next publication, None if there is none. Raises ProtocolError for a malformed one."""
        if not self._waiting:
            return None
        item = self._remove_oldest()
        if isinstance(item, ProtocolError):
            raise item
        return item

    def _is_full(self) -> bool:
        return len(self._waiting) > self._most or self._bytes > WAITING_BYTES

    def _remove_oldest(self) -> Publication | ProtocolError:
        _, item = self._waiting.popitem(last=False)
        self._bytes -= _size(item)
        return item


def _size(item: Publication | ProtocolError) -> int:
    return len(item.data) if isinstance(item, Publication) else 0


class Ages:
    """Computes the ages of publications, by `estimate` of the engine's clock; `ask` has the client learn more of it."""

    def __init__(self, estimate: Callable[[int], Estimate | None], ask: Callable[[], None]) -> None:
        self._estimate = estimate
        self._ask = ask
        self._ask_at = 0
        self._known: Estimate | None = None

    def of(self, publication: Publication, now: int) -> float | None:
        """Return the publication's age in s at `now`, in ns of our clock; None if it is not known."""
        made, boot = publication.meta.clock, publication.meta.boot
        if not made:
            return None
        told = self._estimate(now)
        if (told is None or told.boot != boot or not told.is_fresh) and now >= self._ask_at:
            self._ask_at = now + ASK_NS
            self._ask()
        self._known = told or self._known  # the estimate is forgotten with a connection, while the clock goes on
        known = self._known
        if known is None or known.boot != boot:
            return None
        return max(0, known.time + now - known.local - made) / NS
