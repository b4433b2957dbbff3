"""What a test of the broker knows of every task: a table of the states of a task, and the books of a package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from enum import Enum, auto

from taskengine.broker.lane import Slice
from taskengine.broker.package import Package
from taskengine.broker.partials import Part, PartialResults
from taskengine.broker.tuning import DEATHS
from taskengine.protocol.layouts import MODULE_MARK
from tests.packages import Plain

PINNED = {"arm"}
ENTRY = re.compile(rb"<(\d+)(?: (\w+))?>")


class State(Enum):
    """Where a task is."""

    WAITS = auto()
    HELD = auto()
    RUNS = auto()
    FINISHED = auto()
    ANSWERED = auto()


def between(slices: list[Slice], done: int, stop: int) -> Iterator[tuple[Slice, int, int]]:
    """Of the tasks of a batch those from one number to another, in each slice."""
    for slice in slices:
        first, end = slice.first + max(0, done), min(slice.stop, slice.first + stop)
        if first < end:
            yield slice, first, end
        done, stop = done - (slice.stop - slice.first), stop - (slice.stop - slice.first)


def after(slices: list[Slice], done: int) -> tuple[Slice, int] | None:
    """Which task of the slices comes behind so many, and in which of them it is."""
    for slice in slices:
        if done < slice.stop - slice.first:
            return slice, slice.first + done
        done -= slice.stop - slice.first
    return None


def positions_of(slices: list[Slice]) -> list[tuple[Package, int]]:
    """The tasks of the slices: their packages and positions."""
    return [(slice.package, position) for slice in slices for position in range(slice.first, slice.stop)]


def first_of(slices: list[Slice], tasks: int) -> list[Slice]:
    """The first so many tasks of the slices."""
    first = []
    for slice in slices:
        stop = min(slice.stop, slice.first + tasks)
        tasks -= stop - slice.first
        if stop > slice.first:
            first.append(slice._replace(stop=stop))
    return first


class Event(Enum):
    """The fate of a task."""

    DISPATCH = auto()
    TAKE_BACK = auto()
    BEGIN = auto()
    END = auto()
    ANSWER = auto()
    HAND_BACK = auto()
    DEATH = auto()
    REPEAT = auto()
    LOSE = auto()
    BLAME = auto()
    REVOKE = auto()


RULES: dict[tuple[State, Event], State] = {
    (State.WAITS, Event.DISPATCH): State.HELD,
    (State.WAITS, Event.REVOKE): State.ANSWERED,
    (State.WAITS, Event.LOSE): State.ANSWERED,
    (State.WAITS, Event.BLAME): State.ANSWERED,
    (State.HELD, Event.BEGIN): State.RUNS,
    (State.HELD, Event.HAND_BACK): State.WAITS,
    (State.HELD, Event.TAKE_BACK): State.WAITS,
    (State.RUNS, Event.END): State.FINISHED,
    (State.FINISHED, Event.ANSWER): State.ANSWERED,
    (State.RUNS, Event.DEATH): State.ANSWERED,
    (State.RUNS, Event.REPEAT): State.WAITS,
}


class Task:
    """One task: where it is, and what has happened to it."""

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.state = State.WAITS
        self.events: Counter[Event] = Counter()
        self.worker = ""

    def step(self, event: Event) -> None:
        assert (self.state, event) in RULES, f"{event.name} happened to a task that {self.state.name}"
        self.state = RULES[self.state, event]
        self.events[event] += 1


class Books:
    """A package, as its client sees it."""

    def __init__(self, made: Plain, serial: str) -> None:
        self.package = made
        self.serial = serial
        self.tasks = [Task(lane.partition(MODULE_MARK)[0]) for lane, count in made.lanes for _ in range(count)]
        self.cancelled: set[int] = set()
        self.is_unwanted = False
        self.is_late = False
        self.is_answered = False
        self.deaths: Counter[int] = Counter()
        self.sent: dict[int, str] = {}
        """The entries that were sent, if the client wants each as it comes: "" or the error, by position."""

    def send(self, parts: list[Part]) -> None:
        """Send what there is before the package is whole, or the rest."""
        for part in parts:
            entries = ENTRY.findall(b"".join(part.bodies))
            assert [int(position) for position, _ in entries] == list(range(part.first, part.stop))
            assert self.sent.keys().isdisjoint(range(part.first, part.stop)), "sent twice"
            self.sent |= {int(position): error.decode() for position, error in entries}
            assert part.failed == sum(1 for _, error in entries if error)

    def answer(self) -> list[tuple[int, str]]:
        """The answer that the client got for each task: "" or the error."""
        results = self.package.results
        if isinstance(results, PartialResults):
            self.send(results.take())
            return sorted(self.sent.items())
        return [(int(position), error.decode()) for position, error in ENTRY.findall(results.join())]

    def is_revoked(self, position: int) -> bool:
        return self.is_late or self.is_unwanted or position in self.cancelled

    def check_answer(self) -> None:
        """Check each task's answer against its fate."""
        entries = self.answer()
        assert [position for position, _ in entries] == list(range(len(self.tasks)))
        assert self.package.results.failed == sum(1 for _, error in entries if error)
        for (position, kind), task in zip(entries, self.tasks, strict=True):
            assert task.state is State.ANSWERED, f"task {position} {task.state.name} and is answered"
            happened = task.events
            runs = happened[Event.BEGIN]
            assert runs <= (DEATHS if self.package.idempotent else 1)
            if kind == "":
                assert happened[Event.END] == 1
            elif kind == "WorkerLost" and happened[Event.LOSE]:
                assert task.lane in PINNED
                assert runs == happened[Event.REPEAT], "it had begun"
            elif kind == "WorkerLost" and happened[Event.BLAME]:
                assert runs == happened[Event.REPEAT], "it had begun"
            elif kind == "WorkerLost":
                assert happened[Event.DEATH] == 1
                assert not self.package.idempotent or runs == DEATHS
            else:
                assert kind in ("Cancelled", "TaskTimeout")
                assert happened[Event.REVOKE] == 1
                assert runs == happened[Event.REPEAT], "it had begun"
                assert self.is_revoked(position)
