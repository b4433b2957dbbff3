"""A package in the router: its tasks, its cut into chunks, and its results so far. Pure.

A subclass for each wire knows how its frames look; the broker knows only this file.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import msgspec

from taskengine._fastpath import Assembly
from taskengine.broker.cancellation import CancelledTasks
from taskengine.broker.chunking import Cut, cut
from taskengine.broker.tuning import DEATHS, NAME_BYTES, PACKAGE_BYTES, RUN_BYTES
from taskengine.errors import Cancelled, ProtocolError, TaskEngineError
from taskengine.protocol.layouts import DENIED_LANES, NO_DEADLINE, Format
from taskengine.protocol.limits import MAX_CHANGES, MAX_NAMES
from taskengine.protocol.messages import NOWHERE, UNSTAMPED, Origin, Stamp

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
        """Return the chunk of the run, from 0, that holds the task."""
        return self.cut.number(task - self.first)

    def start(self, number: int) -> int:
        """Return the position at which chunk `number`, from 0, of the run begins."""
        return self.first + self.cut.start(number)


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


def cancelled() -> Cancelled:
    """Return the error of a task that its client cancelled before it began."""
    return Cancelled("the task was cancelled before it began")


Message = Sequence[bytes | list[bytes]]
"""A message without its route; a frame may be in pieces."""
CALL_BYTES = 1024
"""The router does not look at the arguments of calls that take more bytes."""
TaskKind = tuple[str, ...]
"""Packages of one kind cost alike: the names of their tasks, as far as they are registered."""

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(tuple[str, Any, Origin]).decode


def encode_head(serial: str, shared: list[str] | bytes, origin: Origin = NOWHERE) -> bytes:
    """Encode what all slices of a package share: serial, task names (0.2) or the raw pack (0.1), and origin."""
    return _encode((serial, shared, origin))


def decode_head(head: bytes) -> tuple[str, Any, Origin]:
    """Decode a head of `encode_head`: the serial, what the slices share, and the origin."""
    return _decode_head(head)


def _common(some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the runs (first, stop) that lie in both; each is in order, and its runs do not overlap."""
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
        """The client whose turns and limits the package counts against."""
        self.key = ""
        """The client's public key, if it has shown one."""
        self.topic: str | None = None
        """The topic of a data request,"""
        self.publishes = False
        """and whether the request publishes there (or asks for the last value)."""
        self.serial = serial
        self.head = encode_head(serial, shared, origin)
        self.kind = kind
        self.reply_mode = 0
        self.values_flag = 0
        """VALUES_FLAG if the client takes, and may have sent, the extensions for Python's other values."""
        self.priority = 1
        self.deadline = NO_DEADLINE
        self.job = 0
        self.accepted_ns = 0
        self.worker = ""
        self.failed = 0
        self.is_awaited = False
        """Whether only the client needs the results, so that nothing starts once it has left."""
        self.is_urgent = False
        """Whether all tasks are urgent, whatever priority the package was sent with,"""
        self.is_exempt = False
        """and whether the package is so small that no quota and no rate refuses it."""
        self.idempotent = False
        """Whether the client says that each task may run twice."""
        self.attempts: dict[int, int] = {}
        """How often a task was lost with its worker and given to another, by position."""
        self.deaths: dict[int, int] = {}
        """How many workers have died at a chunk before any of its tasks ran, by number of the chunk."""
        self.reason: TaskEngineError | None = None
        """Why tasks that have not started never will."""
        self.unwanted: CancelledTasks | None = None
        """Tasks that the client has cancelled one by one."""
        self.bytes = len(self.head) + len(index) + len(body)
        self.names_held = 0
        """How many names of tasks it keeps, registered or not."""
        self.size = 0
        """About how many bytes it takes, without its results."""
        self.parts = 0
        """Number of chunks in the package, once it is cut."""
        self.parts_told = 0
        """Number of chunks whose return the printed lines have shown."""
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
        """Compute its `size`, once its lanes are known."""
        self.size = self.bytes + PACKAGE_BYTES + RUN_BYTES * len(self.lanes) + NAME_BYTES * self.names_held
        return self.size

    def belong(self, key: str) -> None:
        """Note the client's public key; the package counts by the key's name, whichever connection it came by."""
        self.key = key
        if key:
            self.owner = self.origin.client.encode()

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
        """Yield the chunks that hold the tasks from `first` to `stop`: (part, first, stop), no task beyond these."""
        while first < stop:
            run = self.runs[bisect_right(self.runs, first, key=_first) - 1]
            number = run.number(first)
            end = min(run.start(number + 1), stop)
            yield run.part + number, first, end
            first = end

    def may_repeat(self, position: int, idempotent: Container[str]) -> bool:
        """Return whether a task that was lost while it ran is to run again, and count that. `idempotent` are names."""
        attempts = self.attempts.get(position, 0) + 1
        if attempts >= DEATHS or not (self.idempotent or self.name_of(position) in idempotent):
            return False
        self.attempts[position] = attempts
        return True

    def blame(self, position: int) -> int:
        """Count a worker's death before the next task, at `position`, had begun. Return where the part to be lost ends.

        That is `position` itself if another worker is to get the chunk, and the end of the chunk if the chunk is lost.
        """
        part, _, stop = next(self.chunks(position, self.count))
        self.deaths[part] = self.deaths.get(part, 0) + 1
        return stop if self.deaths[part] >= DEATHS else position

    def cancel(self, positions: Iterable[int] | None) -> bool:
        """Cancel these tasks, or all with None, as far as they have not started; return whether that is news.

        Raises Overloaded where they are too scattered.
        """
        if self.reason is not None:
            return False
        if positions is None:
            self.reason = cancelled()
            return True
        self.unwanted = self.unwanted or CancelledTasks(self.count)
        return self.unwanted.add(filter(self.assembly.lacks, positions))

    def part(self, pinned: Container[str]) -> bool:
        """Cancel what nobody needs once the client has left, and what would run in `pinned` lanes; see `cancel`."""
        runs = [(run.first, run.stop) for run in self.runs if run.lane in pinned]
        if self.is_awaited or len(runs) == len(self.runs):
            return self.cancel(None)
        if self.reason is not None or not runs:
            return False
        self.unwanted = self.unwanted or CancelledTasks(self.count)
        return self.unwanted.add_runs(_common(runs, self.assembly.gaps()))

    def put(self, first: int, stop: int, body: bytes) -> bool:
        """Take the answer of the tasks from `first` to `stop`; return whether the package is complete now."""
        if self.unwanted is not None:
            self.unwanted.answer(first, stop)
        return self.assembly.put(first, stop, body)

    def is_over(self) -> bool:
        """Return whether all tasks without an answer are cancelled."""
        return self.reason is not None or (self.unwanted is not None and self.unwanted.left == self.assembly.missing)

    def is_revoked(self, first: int, stop: int) -> bool:
        """Return whether one of the tasks from `first` to `stop` is cancelled."""
        return self.reason is not None or (self.unwanted is not None and self.unwanted.any(first, stop))

    def section(self, run: Run, first: int, stop: int) -> Section:
        """Return the slice of the run from `first` to `stop`."""
        number = run.number(first)
        size, larger = run.cut.size, max(0, run.cut.larger - number - 1)
        deadline = 0 if self.deadline == NO_DEADLINE else int(self.deadline * 1e9)
        lead = min(run.start(number + 1), stop) - first
        return (
            *(self.job, self.format, self.reply_mode | self.values_flag, deadline, self.head, self.index, self.body),
            *(run.part + number, first, stop, lead, larger, size),
        )

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

    def refusal(self, error: TaskEngineError, stamp: Stamp = UNSTAMPED) -> Message:
        """Return the frames that refuse the whole package."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return the request's META as it is printed."""
        raise NotImplementedError

    def describe_part(self, part: int, worker: str) -> str:
        """Return the META of one chunk that came back from `worker`, as it is printed."""
        raise NotImplementedError
