"""A package in the router: what came in, where it is cut, what is owed. Pure.

A subclass for each wire says how its frames look; the broker knows only this file.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import msgspec

from taskengine._fastpath import Assembly
from taskengine.chunking import Cut, cut
from taskengine.errors import Cancelled, ProtocolError, TaskEngineError
from taskengine.messages import NOWHERE, UNSTAMPED, Origin, Stamp
from taskengine.unwanted import Unwanted
from taskengine.wire import (
    DEATHS,
    DENIED_LANES,
    MAX_CHANGES,
    MAX_NAMES,
    NAME_BYTES,
    NO_DEADLINE,
    PACKAGE_BYTES,
    RUN_BYTES,
    Format,
)

DEFAULT_LANE = ""
_first = attrgetter("first")

Section = tuple[int, int, int, int, bytes, bytes, bytes, int, int, int, int, int, int]
"""A slice of a package as `_fastpath.pack_batch` takes it."""


class Run(NamedTuple):
    """Neighbouring tasks of one lane, from position `first` to `stop`, in chunks whose numbers begin at `part`."""

    lane: str
    first: int
    stop: int
    part: int
    cut: Cut

    def number(self, task: int) -> int:
        """The chunk of the run, from 0, that holds the task."""
        return self.cut.number(task - self.first)

    def start(self, number: int) -> int:
        """The position at which chunk `number`, from 0, of the run begins."""
        return self.first + self.cut.start(number)


class Called(NamedTuple):
    """A call in a package, with its arguments."""

    name: str
    position: int
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def lanes_of(runs: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Neighbouring (lane, number of tasks) made one where the lane is the same. Raises ProtocolError for too many."""
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


def cancelled() -> Cancelled:
    """What becomes of a task that its client does not want any more, and that had not begun."""
    return Cancelled("the task was cancelled before it began")


Message = Sequence[bytes | list[bytes]]
"""A message without its route; a frame may be in pieces."""
CALL_BYTES = 1024
"""Calls that take more are none of which the router looks at the arguments."""
TaskKind = tuple[str, ...]
"""What tells packages of alike cost apart: the names of their tasks, of those that there are."""

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(tuple[str, Any, Origin]).decode


def encode_head(serial: str, shared: list[str] | bytes, origin: Origin = NOWHERE) -> bytes:
    """What every slice of a package shares: its serial, its task names (0.2) or pack as it came (0.1), its origin."""
    return _encode((serial, shared, origin))


def decode_head(head: bytes) -> tuple[str, Any, Origin]:
    """The serial, what the slices share, and where they came from."""
    return _decode_head(head)


def _common(some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The runs (first, stop) that lie in both; each is in order, and its runs do not overlap."""
    mine = theirs = 0
    while mine < len(some) and theirs < len(others):
        first, stop = max(some[mine][0], others[theirs][0]), min(some[mine][1], others[theirs][1])
        if first < stop:
            yield first, stop
        if some[mine][1] == stop:
            mine += 1
        else:
            theirs += 1


class Package:
    """One accepted message of a client, from acceptance to answer.

    `route` is the way back to the client, `shared` as in `encode_head`, `kind` the names of its tasks, which lie in
    `index` and `body`, and `origin` where it came from.
    """

    format = Format.PACKED

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
        self.route = route
        self.origin = origin
        self.client = route[0] if route else b""
        self.owner = self.client
        """Whose turns and limits it counts against."""
        self.key = ""
        """Its client's public key, where it has shown one."""
        self.topic: str | None = None
        """What a data request is about,"""
        self.publishes = False
        """and whether it publishes there or asks for the last value."""
        self.serial = serial
        self.head = encode_head(serial, shared, origin)
        self.kind = kind
        self.reply_mode = 0
        self.priority = 1
        self.deadline = NO_DEADLINE
        self.job = 0
        self.accepted_ns = 0
        self.worker = ""
        self.failed = 0
        self.is_awaited = False
        """Its tasks are for nobody but its client, and not to start where that has left."""
        self.is_urgent = False
        """All its tasks are urgent, whatever priority it was sent with,"""
        self.is_exempt = False
        """and it is so small that no quota and no rate refuses it."""
        self.idempotent = False
        """Its client says that each task may run twice."""
        self.attempts: dict[int, int] = {}
        """How often a task was lost with its worker and given to another, by position."""
        self.deaths: dict[int, int] = {}
        """How many workers have died at a chunk of which no task ran, by its number."""
        self.reason: TaskEngineError | None = None
        """Why what has not started never will."""
        self.unwanted: Unwanted | None = None
        """Tasks that its client has cancelled one by one."""
        self.bytes = len(self.head) + len(index) + len(body)
        self.names_held = 0
        """Names of tasks that it keeps, whether there are such tasks or not."""
        self.size = 0
        """The bytes that it takes, about, beside its results."""
        self.parts = 0
        """Chunks in the package, once it is cut."""
        self.parts_told = 0
        """Chunks of which the printed lines have told that they came back."""
        self.runs: list[Run] = []
        self.lanes: list[tuple[str, int]] = []
        self.hold(index, body)

    def hold(self, index: bytes, body: bytes) -> None:
        """Take the tasks."""
        self.index = index
        self.body = body
        self.count = len(index) // 4
        self.assembly = Assembly(self.count)

    def measure(self) -> int:
        """Its `size`, once its lanes are known."""
        self.size = self.bytes + PACKAGE_BYTES + RUN_BYTES * len(self.lanes) + NAME_BYTES * self.names_held
        return self.size

    def belong(self, key: str) -> None:
        """Its client has shown this public key, and counts by its name, by whatever connection it came."""
        self.key = key
        if key:
            self.owner = self.origin.client.encode()

    def check_small(self, pinned: Container[str], most: int) -> None:
        """See to it that no task of a lane with pins has more than so many bytes, or what is no value.

        The owner of the pins would be busy with it. Raises BadArguments, ProtocolError.
        """
        first = 0
        for lane, tasks in self.lanes:
            if lane in pinned:
                self.check_tasks(first, first + tasks, most)
            first += tasks

    def denied(self) -> list[str]:
        """The names of the tasks that its client may not call."""
        names = (lane.removeprefix(DENIED_LANES) for lane, _ in self.lanes if lane.startswith(DENIED_LANES))
        return list(dict.fromkeys(names))

    def forget_tasks(self) -> None:
        """All have been answered, and need no memory beside their results any more."""
        self.index = self.body = b""

    def forget(self) -> None:
        """It was delivered; the printed lines may still tell of it."""
        self.forget_tasks()
        self.assembly = Assembly(0)

    def cut(self, size: int | None, workers: dict[str, int]) -> None:
        """Cut the package for lanes of so many `workers`, by `lanes`: neighbouring tasks as (lane, number of tasks)."""
        first, part = 0, 1
        for lane, tasks in self.lanes:
            pieces = cut(tasks, size, workers.get(lane, 1))
            self.runs.append(Run(lane, first, first + tasks, part, pieces))
            first, part = first + tasks, part + pieces.chunks
        self.parts = part - 1

    def chunks(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The chunks that hold the tasks from `first` to `stop`: (part, first, stop), no task beyond these."""
        while first < stop:
            run = self.runs[bisect_right(self.runs, first, key=_first) - 1]
            number = run.number(first)
            end = min(run.start(number + 1), stop)
            yield run.part + number, first, end
            first = end

    def may_repeat(self, position: int, idempotent: Container[str]) -> bool:
        """Whether a task, which was lost while it ran, is to run again; counts that. `idempotent` are names."""
        attempts = self.attempts.get(position, 0) + 1
        if attempts >= DEATHS or not (self.idempotent or self.name_of(position) in idempotent):
            return False
        self.attempts[position] = attempts
        return True

    def blame(self, position: int) -> int:
        """A worker died before a task, which was next, had begun: where its chunk ends if that is to be lost.

        Its own position where another worker is to have it.
        """
        part, _, stop = next(self.chunks(position, self.count))
        self.deaths[part] = self.deaths.get(part, 0) + 1
        return stop if self.deaths[part] >= DEATHS else position

    def cancel(self, positions: Iterable[int] | None) -> bool:
        """Have these tasks, or, with None, all, not start if they have not; whether that is news.

        Raises Overloaded where they lie too scattered.
        """
        if self.reason is not None:
            return False
        if positions is None:
            self.reason = cancelled()
            return True
        self.unwanted = self.unwanted or Unwanted(self.count)
        return self.unwanted.add(filter(self.assembly.lacks, positions))

    def part(self, pinned: Container[str]) -> bool:
        """As `cancel`, where its client has left: all that is for nobody else, or what these lanes would do."""
        runs = [(run.first, run.stop) for run in self.runs if run.lane in pinned]
        if self.is_awaited or len(runs) == len(self.runs):
            return self.cancel(None)
        if self.reason is not None or not runs:
            return False
        self.unwanted = self.unwanted or Unwanted(self.count)
        return self.unwanted.add_runs(_common(runs, self.assembly.gaps()))

    def put(self, first: int, stop: int, body: bytes) -> bool:
        """Take what answers the tasks from `first` to `stop`; whether the package is whole now."""
        if self.unwanted is not None:
            self.unwanted.answer(first, stop)
        return self.assembly.put(first, stop, body)

    def is_over(self) -> bool:
        """No task that has no answer yet is wanted."""
        return self.reason is not None or (self.unwanted is not None and self.unwanted.left == self.assembly.missing)

    def is_revoked(self, first: int, stop: int) -> bool:
        """One of the tasks from `first` to `stop` is not to start."""
        return self.reason is not None or (self.unwanted is not None and self.unwanted.any(first, stop))

    def section(self, run: Run, first: int, stop: int) -> Section:
        """The slice of the run from `first` to `stop`."""
        number = run.number(first)
        size, larger = run.cut.size, max(0, run.cut.larger - number - 1)
        deadline = 0 if self.deadline == NO_DEADLINE else int(self.deadline * 1e9)
        lead = min(run.start(number + 1), stop) - first
        return (
            *(self.job, self.format, self.reply_mode, deadline, self.head, self.index, self.body),
            *(run.part + number, first, stop, lead, larger, size),
        )

    def pieces_of(self, error: TaskEngineError, first: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """What workers would have sent, had the tasks from `first` to `stop` all ended in `error`."""
        raise NotImplementedError

    def mend(self, tasks: int, body: bytes) -> bytes:
        """The body that answers so many tasks, from what a dead worker left of it (see `_fastpath.Slate.read`)."""
        return body

    def check_tasks(self, first: int, stop: int, most: int) -> None:
        """See to it that each of these tasks has at most so many bytes. Raises BadArguments, ProtocolError."""
        raise NotImplementedError

    def called(self) -> Collection[str]:
        """The names that its tasks have, "" for those that have none; what is only listed is not among them."""
        return self.kind

    def calls(self, names: Container[str], most: int) -> Iterator[Called]:
        """The first `most` calls of these names that can be read."""
        raise NotImplementedError

    def name_of(self, position: int) -> str:
        """The name of the task at a position, "" where it has none."""
        raise NotImplementedError

    def answer(self, stamp: Stamp = UNSTAMPED) -> Message:
        """The frames that answer the whole package, without the route."""
        raise NotImplementedError

    def refusal(self, error: TaskEngineError, stamp: Stamp = UNSTAMPED) -> Message:
        """The frames that refuse the whole package."""
        raise NotImplementedError

    def describe(self) -> str:
        """The request's META, as the seed prints it."""
        raise NotImplementedError

    def describe_part(self, part: int, worker: str) -> str:
        """The META of one chunk that came back from `worker`, as the seed prints it."""
        raise NotImplementedError
