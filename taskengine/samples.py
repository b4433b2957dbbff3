"""What a subscriber makes of publications: which it wants, which wait for it, how many are lost, how old each is. Pure.

A publication has a number on its topic, by which it is known when it comes again, and by which those are counted that
never came: what a slow network or a slow subscriber costs shows there.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from taskengine.clock import Estimate
from taskengine.errors import ProtocolError

WAITING: Final = 2000
"""Publications that wait for a subscriber that does not take them, unless it says how many,"""
WAITING_BYTES: Final = 64 * 2**20
"""and the most bytes of them; one may be larger."""
ASK_NS: Final = 10**10
"""How often the engine is asked for its clock at most."""
NS: Final = 10**9


class Sample(msgspec.Struct, frozen=True):
    """One publication: its value, when it was made (wall clock, s), its number on the topic, and who made it.

    `publisher` is `source`, `task`, `engine`, `client`, or of a client with a key `client:NAME`; "" where an older
    engine does not tell. `age` is how many s before it was handed out it was made, by the engine's clock, and as wrong
    as half a round trip at most; None where that is not known, such as from an older engine.
    """

    topic: str
    value: Any
    time: float
    number: int
    publisher: str = ""
    age: float | None = None


class _Meta(msgspec.Struct):
    id: str
    pack: float
    part: int
    publisher: str = ""
    clock: int = 0
    boot: int = 0


class _Data(msgspec.Struct):
    data: Any


_decode_meta = msgspec.json.Decoder(_Meta).decode
_decode_data = msgspec.json.Decoder(_Data).decode


class Publication(NamedTuple):
    """A publication whose value was not read yet."""

    topic: str
    meta: _Meta
    data: bytes

    def sample(self, age: float | None = None) -> Sample:
        """It with its value. Raises ProtocolError for what is no publication."""
        try:
            value = _decode_data(self.data).data
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise _none(error) from None
        meta = self.meta
        return Sample(self.topic, value, meta.pack, meta.part, meta.publisher, age)


class Feed:
    """Which publications a subscriber to `topic` wants: its own topic, and none twice."""

    def __init__(self, topic: str) -> None:
        self._whole = not topic.endswith("*")
        self.prefix = topic if self._whole else topic[:-1]
        self._seen: dict[str, tuple[str, int]] = {}
        self.missed = 0
        """Publications that never came, of those between the first and the last that did."""

    def read(self, frames: Sequence[bytes]) -> Publication | None:
        """The publication in a message, None where it is not wanted. Raises ProtocolError for what is none."""
        try:
            topic, meta, data = frames[0].decode(), _decode_meta(frames[1]), frames[2]
        except (IndexError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise _none(error) from None
        if self._whole and topic != self.prefix:
            return None
        # a data worker repeats its last value whenever somebody subscribes
        publisher, number = self._seen.get(topic, ("", 0))
        if meta.id == publisher:
            if meta.part <= number:
                return None
            self.missed += meta.part - number - 1
        self._seen[topic] = meta.id, meta.part
        return Publication(topic, meta, data)

    def take(self, frames: Sequence[bytes]) -> Sample | None:
        """The sample in a message, without its age, None where it is not wanted. Raises ProtocolError."""
        publication = self.read(frames)
        return None if publication is None else publication.sample()


def _none(error: Exception) -> ProtocolError:
    return ProtocolError(f"not a publication: {error}")


class Backlog:
    """What has come and was not taken yet, in the order in which it came: at most `most`, without the oldest.

    With `newest` only the newest of each topic is kept, in the place of the one before, so that topics that are
    published often leave their turn to others.
    """

    def __init__(self, most: int = WAITING, *, newest: bool = False) -> None:
        self._most = most
        self._newest = newest
        self._numbers = itertools.count()
        self._waiting: OrderedDict[str | int, Publication | ProtocolError] = OrderedDict()
        self._bytes = 0
        self.dropped = 0
        """Publications that came and gave way to newer ones."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Publication | ProtocolError) -> None:
        """Keep a publication, or what was to be one."""
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
        """The next publication, None where there is none. Raises ProtocolError for what was to be one."""
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
    """How old publications are, by what `estimate` tells of the engine's clock; `ask` has it learn more of that."""

    def __init__(self, estimate: Callable[[int], Estimate | None], ask: Callable[[], None]) -> None:
        self._estimate = estimate
        self._ask = ask
        self._ask_at = 0
        self._known: Estimate | None = None

    def of(self, publication: Publication, now: int) -> float | None:
        """The age in s at `now`, in ns of our clock, of what was made by the engine's; None where nobody can tell."""
        made, boot = publication.meta.clock, publication.meta.boot
        if not made:
            return None
        told = self._estimate(now)
        if (told is None or told.boot != boot or not told.is_fresh) and now >= self._ask_at:
            self._ask_at = now + ASK_NS
            self._ask()
        self._known = told or self._known  # forgotten with a connection, while the clock goes on
        known = self._known
        if known is None or known.boot != boot:
            return None
        return max(0, known.time + now - known.local - made) / NS
