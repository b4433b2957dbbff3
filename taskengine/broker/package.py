"""A package in the router: what its client asks for, and how its wire answers. Pure.

A subclass for each wire knows how its frames look; the broker knows only this file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from taskengine.broker.chunking import Chunks, Run
from taskengine.broker.flight import Flight
from taskengine.broker.partials import Part
from taskengine.broker.results import Results
from taskengine.broker.tuning import NAME_BYTES, PACKAGE_BYTES, RUN_BYTES
from taskengine.errors import ProtocolError, TaskEngineError
from taskengine.protocol.credit import Grant
from taskengine.protocol.layouts import DENIED_LANES, NO_DEADLINE, Format
from taskengine.protocol.limits import MAX_CHANGES, MAX_NAMES
from taskengine.protocol.messages import NOWHERE, UNSTAMPED, Origin, Priority, ReplyMode, Stamp

DEFAULT_LANE = ""


class Section(NamedTuple):
    """A slice of a package as `_fastpath.pack_batch` takes it; `ends` and `body` are of the whole package.

    The tasks go from `first` to `stop`. The first `lead` of them end chunk `part`; of the chunks after it `larger` have
    `size` + 1 tasks, and the others `size`. `deadline` is in ns, monotonic, 0 for none.
    """

    job: int
    format: int
    reply_mode: int
    deadline: int
    head: bytes
    ends: bytes
    body: bytes
    part: int
    first: int
    stop: int
    lead: int
    larger: int
    size: int


class Called(NamedTuple):
    """A call in a package, with its arguments."""

    name: str
    position: int
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def lanes_of(runs: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Merge neighbouring (lane, number of tasks) of the same lane. Raises ProtocolError for too many."""
    lanes = [
        (lane, sum(tasks for _, tasks in group))
        for lane, group in itertools.islice(itertools.groupby(runs, itemgetter(0)), MAX_CHANGES + 1)
    ]
    if len(lanes) > MAX_CHANGES:
        raise ProtocolError(f"the tasks of a package change from lane to lane at most {MAX_CHANGES} times")
    return lanes


def check_names(count: int) -> None:
    """Raise ProtocolError where a package names too many tasks."""
    if count > MAX_NAMES:
        raise ProtocolError(f"a package names at most {MAX_NAMES} tasks, not {count}")


Message = Sequence[bytes | list[bytes]]
"""A message without its route; a frame may be in pieces."""
CALL_BYTES = 1024
"""The router does not look at the arguments of calls that take more bytes."""
TaskKind = tuple[str, ...]
"""Packages of one kind cost alike: the names of their tasks, as far as they are registered."""

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(tuple[str, Any, Origin]).decode


class _LongHead(NamedTuple):
    """What all slices of a package share that streams, or is watched; see `encode_head`."""

    serial: str
    shared: Any
    origin: Origin
    stream: tuple[int, int, bool] | None
    is_watched: bool = False


_decode_long_head = msgspec.msgpack.Decoder(_LongHead).decode
_PLAIN_HEAD, _STREAM_HEAD, _WATCHED_HEAD = 0x93, 0x94, 0x95
"""The first byte of a head with 3 parts, of a stream's with 4, and of one with 5, whose client wants progress."""


def encode_head(
    serial: str,
    shared: list[str] | bytes,
    origin: Origin = NOWHERE,
    stream: tuple[int, int, bool] | None = None,
    *,
    is_watched: bool = False,
) -> bytes:
    """Encode what all slices of a package share: serial, task names (0.2) or the raw pack (0.1), and origin.

    A stream has besides the credit with which it begins, and whether its client takes Python's other values. A package
    that `is_watched` is one whose client wants to know the progress of its tasks.
    """
    if is_watched:
        return _encode((serial, shared, origin, stream, True))
    return _encode((serial, shared, origin) if stream is None else (serial, shared, origin, stream))


def decode_head(head: bytes) -> tuple[str, Any, Origin]:
    """Decode a head of `encode_head`: the serial, what the slices share, and the origin."""
    return _decode_head(head) if head[0] == _PLAIN_HEAD else _decode_long_head(head)[:3]


def is_watched(head: bytes) -> bool:
    """Return whether the client of a package with this head wants to know the progress of its tasks."""
    return head[0] == _WATCHED_HEAD


def stream_of(head: bytes) -> tuple[Grant, bool] | None:
    """Return the credit with which a stream begins, and whether its client takes Python's other values.

    None where the head is not one of a stream.
    """
    stream = None if head[0] == _PLAIN_HEAD else _decode_long_head(head).stream
    if stream is None:
        return None
    values, size, takes_values = stream
    return Grant(values, size), takes_values


class Sender:
    """The sender of a package: the way back to it, as routing ids, and where it sent from."""

    __slots__ = ("client", "key", "origin", "owner", "route")

    def __init__(self, route: tuple[bytes, ...], origin: Origin = NOWHERE) -> None:
        self.route = route
        self.origin = origin
        self.client = route[0] if route else b""
        """The routing id of its connection."""
        self.key = ""
        """The client's public key, if it has shown one."""
        self.owner = self.client
        """The client whose turns and limits its packages count against."""

    def show_key(self, key: str) -> None:
        """Note the client's public key. Its packages count by the key's name, whichever connection they came by."""
        self.key = key
        if key:
            self.owner = self.origin.client.encode()


class DataRequest(NamedTuple):
    """A package's request to a data worker: to publish on a topic, or for the topic's last value."""

    topic: str
    publishes: bool


class Urgency(NamedTuple):
    """The urgency of a package, by the tasks that it calls.

    If it `is_urgent`, all of its tasks are, whatever its priority. If it `is_exempt`, it is also so small that no quota
    and no rate refuses it.
    """

    is_urgent: bool = False
    is_exempt: bool = False


NOT_URGENT = Urgency()
NO_RESULTS = Results(0)


class Package:
    """One accepted message of a client.

    A package has three parts with one writer each. Its own attributes are the request, and come from the reader of
    its wire; the frontend adds the `urgency`, and the broker reads all of them. `flight` is the broker's record until
    the last answer. `results` has the results that are known so far; `answer` and `refusal` make the reply.
    """

    format = Format.PACKED
    reply_mode = ReplyMode.ALL
    values_flag = 0
    """VALUES_FLAG if the client takes, and may have sent, the extensions for Python's other values."""
    priority = Priority.NORMAL
    deadline = NO_DEADLINE
    """The latest time at which a task may begin, in s, monotonic."""
    idempotent = False
    """Whether the client says that each task may run twice."""
    is_awaited = False
    """Whether only the client needs the results, so that nothing starts once it has left."""
    is_watched = False
    """Whether its client wants to know the progress of its tasks."""
    names_held = 0
    """How many names of tasks it keeps, registered or not."""
    data_request: DataRequest | None = None
    urgency = NOT_URGENT
    taker: Callable[[Package], None] | None = None
    """The function that gets the package when it is whole, where the engine itself has sent it."""

    def __init__(
        self,
        route: tuple[bytes, ...],
        serial: str,
        shared: list[str] | bytes,
        kind: TaskKind,
        index: bytes,
        body: bytes,
        origin: Origin = NOWHERE,
    ) -> None:
        """Take what was asked: `shared` as in `encode_head`, tasks of the names `kind`, which lie in `index`, `body`.

        `route` is the way back to the client, and `origin` where the package came from.
        """
        self.sender = Sender(route, origin)
        self.serial = serial
        self.head = encode_head(serial, shared, origin)
        self.kind = kind
        self.bytes = len(self.head) + len(index) + len(body)
        self.lanes: list[tuple[str, int]] = []
        """Its tasks in order, as neighbours of one lane: (lane, number of tasks)."""
        self.flight = Flight()
        self.hold(index, body)

    def hold(self, index: bytes, body: bytes) -> None:
        """Take the tasks."""
        self.index = index
        self.body = body
        self.count = len(index) // 4
        self.results = Results(self.count)

    @property
    def size(self) -> int:
        """About how many bytes it takes, without its results, once its lanes are known."""
        return self.bytes + PACKAGE_BYTES + RUN_BYTES * len(self.lanes) + NAME_BYTES * self.names_held

    def check_small(self, pinned: Container[str], most: int) -> None:
        """Check that no task of a lane with pins has more than `most` bytes or holds something that is no value.

        The owner of the pins would be busy with it. Raises BadArguments, ProtocolError.
        """
        first = 0
        for lane, tasks in self.lanes:
            if lane in pinned:
                self.check_tasks(first, first + tasks, most)
            first += tasks

    def denied(self) -> list[str]:
        """Return the names of the tasks that its client may not call."""
        names = (lane.removeprefix(DENIED_LANES) for lane, _ in self.lanes if lane.startswith(DENIED_LANES))
        return list(dict.fromkeys(names))

    def forget_tasks(self) -> None:
        """Free the tasks, all of which have been answered; the results stay."""
        self.index = self.body = b""

    def forget(self) -> None:
        """Free the results after delivery; the printed lines may still describe the package."""
        self.forget_tasks()
        self.results = NO_RESULTS

    def cut(self, size: int | None, workers: Mapping[str, int]) -> None:
        """Cut the package into chunks of at most `size` tasks, for lanes of so many `workers`."""
        self.flight.chunks = Chunks(self.lanes, size, workers)

    def section(self, run: Run, first: int, stop: int) -> Section:
        """Return the slice of the run from `first` to `stop`."""
        cut = run.cut
        number = cut.number(first)
        deadline = 0 if self.deadline == NO_DEADLINE else int(self.deadline * 1e9)
        lead, larger = min(cut.start(number + 1), stop) - first, max(0, cut.larger - number - 1)
        mode = self.reply_mode | self.values_flag
        what = self.flight.job, self.format, mode, deadline, self.head, self.index, self.body
        # a seventh of the instructions of `Section(…)`
        return tuple.__new__(Section, (*what, run.part + number, first, stop, lead, larger, cut.size))

    def pieces_of(self, error: TaskEngineError, first: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield what workers would have sent if the tasks from `first` to `stop` had all ended in `error`."""
        raise NotImplementedError

    def mend(self, tasks: int, body: bytes) -> bytes:
        """Complete what a dead worker left of an answer to so many tasks (see `_fastpath.ProgressPage.read`)."""
        return body

    def check_tasks(self, first: int, stop: int, most: int) -> None:
        """Check that each of these tasks has at most `most` bytes. Raises BadArguments, ProtocolError."""
        raise NotImplementedError

    def called(self) -> Collection[str]:
        """Return the names of the tasks that the package calls, "" for tasks without a name.

        Unused names are left out.
        """
        return self.kind

    def calls(self, names: Container[str], most: int) -> Iterator[Called]:
        """Return the first `most` calls of these names that can be read."""
        raise NotImplementedError

    def name_of(self, position: int) -> str:
        """Return the name of the task at a position, "" where it has none."""
        raise NotImplementedError

    def answer(self, stamp: Stamp = UNSTAMPED) -> Message:
        """Return the frames that answer the whole package, without the route."""
        raise NotImplementedError

    def partial_answer(
        self, part: Part, error: TaskEngineError | None, *, is_last: bool, stamp: Stamp = UNSTAMPED
    ) -> Message:
        """Return the frames that answer the tasks of `part`, all of them with `error` if there is one."""
        raise NotImplementedError

    def stream_answer(
        self, first: int, count: int, bodies: list[bytes], error: TaskEngineError | None, *, is_last: bool, stamp: Stamp
    ) -> Message:
        """Return the frames that send `count` values of a stream, or, if `is_last`, its end.

        With `error` it ends in that, whatever its task has answered.
        """
        raise NotImplementedError

    def progress_answer(self, reports: list[bytes], stamp: Stamp) -> Message:
        """Return the frames that tell the client the progress of running tasks."""
        raise NotImplementedError

    def refusal(self, error: TaskEngineError, stamp: Stamp = UNSTAMPED) -> Message:
        """Return the frames that refuse the whole package."""
        raise NotImplementedError
