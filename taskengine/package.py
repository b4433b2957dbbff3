"""A package in the router: what came in, where it is cut, what is owed. Pure.

A subclass for each wire says how its frames look; the broker knows only this file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from taskengine._fastpath import Assembly
from taskengine.chunking import Cut, cut
from taskengine.errors import TaskEngineError
from taskengine.wire import NO_DEADLINE, Format

DEFAULT_LANE = ""


class Run(NamedTuple):
    """Neighbouring tasks of one lane: `tasks.tasks` of them from position `first`, in parts from `part`."""

    lane: str
    first: int
    part: int
    tasks: Cut

    def bounds(self, part: int) -> tuple[int, int]:
        """First and stop position in the package of the tasks in `part`."""
        start, stop = self.tasks.bounds(part - self.part + 1)
        return self.first + start, self.first + stop


def encode_head(serial: str, shared: list[str] | bytes) -> bytes:
    """What every chunk of a package shares: its serial, and its task names (0.2) or its pack as it came (0.1)."""
    return msgspec.msgpack.encode((serial, shared))


def decode_head(head: bytes) -> tuple[str, Any]:
    """The serial and what the chunks share."""
    serial, shared = msgspec.msgpack.decode(head)
    return serial, shared


class Package:
    """One accepted message of a client, from acceptance to answer.

    `route` is the way back to the client, `shared` as in `encode_head`, `index` and `body` its tasks.
    """

    format = Format.PACKED

    def __init__(
        self, route: tuple[bytes, ...], serial: str, shared: list[str] | bytes, index: bytes, body: bytes
    ) -> None:
        self.route = route
        self.serial = serial
        self.head = encode_head(serial, shared)
        self.index = index
        self.body = body
        self.kind = msgspec.msgpack.encode(shared)
        """What tells packages of alike cost apart."""
        self.reply_mode = 0
        self.priority = 1
        self.deadline = NO_DEADLINE
        self.job = 0
        self.worker = ""
        self.failed = 0
        self.runs: list[Run] = []
        self.assembly = Assembly(0)
        self.lanes: list[tuple[str, int]] = []

    @property
    def count(self) -> int:
        """Tasks in the package."""
        return len(self.index) // 4

    @property
    def parts(self) -> int:
        """Chunks in the package, once it is cut."""
        return sum(run.tasks.chunks for run in self.runs)

    def cut(self, size: int | None, workers: dict[str, int]) -> None:
        """Cut the package for lanes of so many `workers`, by `lanes`: neighbouring tasks as (lane, number of tasks)."""
        first, part = 0, 1
        for lane, tasks in self.lanes:
            pieces = cut(tasks, size, workers.get(lane, 1))
            self.runs.append(Run(lane, first, part, pieces))
            first, part = first + tasks, part + pieces.chunks
        self.assembly = Assembly(self.parts)

    def bounds(self, part: int) -> tuple[int, int]:
        """First and stop position of the tasks in `part`."""
        if len(self.runs) == 1:
            return self.runs[0].tasks.bounds(part)
        run = next(run for run in reversed(self.runs) if run.part <= part)
        return run.bounds(part)

    def errors(self, first: int, stop: int, error: TaskEngineError) -> bytes:
        """What a worker would have sent, had the tasks from `first` to `stop` all ended in `error`."""
        raise NotImplementedError

    def answer(self) -> list[bytes]:
        """The frames that answer the whole package, without the route."""
        raise NotImplementedError

    def refusal(self, error: TaskEngineError) -> list[bytes]:
        """The frames that refuse the whole package."""
        raise NotImplementedError

    def describe(self) -> str:
        """The request's META, as the seed prints it."""
        raise NotImplementedError

    def describe_part(self, part: int, worker: str) -> str:
        """The META of one chunk that came back from `worker`, as the seed prints it."""
        raise NotImplementedError
