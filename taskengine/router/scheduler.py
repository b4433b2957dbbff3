"""Runs periodic tasks: a client of the router's own, which calls them and publishes their results.

Its name in the policy, and in the origin of its calls, is `schedule`. The result of each run is published on
`schedule.` and the name of the task.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from taskengine import _fastpath
from taskengine.broker.binary import error_of, read_package
from taskengine.broker.origins import Origins
from taskengine.broker.package import Package
from taskengine.errors import TaskEngineError, shortened
from taskengine.protocol.layouts import SCHEDULE_CLIENT, SCHEDULE_TOPICS
from taskengine.protocol.limits import FEED_BYTES
from taskengine.protocol.messages import Request, RequestKind, ScheduleState, TaskInfo
from taskengine.registry.timetable import LocalZone
from taskengine.router.schedule import NS, ClockReading, Schedule
from taskengine.runtime.clocks import MachineClock
from taskengine.runtime.wall_clock import WallClock

BRIEF = 80
"""Characters of a result, or of an error, that `tasks` and `top` show."""
_SCALARS = frozenset({0xC0, 0xC2, 0xC3, 0xCA, 0xCB, *range(0xCC, 0xD4), *range(0xD9, 0xDC), *range(0xE0, 0x100)})
"""The first bytes of values of MessagePack that are no maps, lists, bytes or extensions; others are below 0x80,"""
_SHORT_TEXTS = range(0xA0, 0xC0)
"""or texts of up to 31 bytes."""
Taker = Callable[[Package], None]


class OwnCalls(Protocol):
    """What the router's side towards clients does for the schedule."""

    clock: MachineClock
    origins: Origins

    def admit_own(self, read: Callable[[Mapping[str, str]], Package], name: str | None, now: float) -> None:
        """Take a package, as this client of the policy. Raises TaskEngineError."""


class OwnClient:
    """The engine's own client: calls tasks, and publishes, by way of `calls`."""

    def __init__(self, calls: OwnCalls, data_workers: int) -> None:
        self._calls = calls
        self._data_workers = data_workers
        self._serials = itertools.count(1)

    def call(self, task: str, taker: Taker, now: float) -> None:
        """Call a task without arguments; `taker` gets the package when it is whole. Raises TaskEngineError."""
        index, body = _fastpath.pack_calls([(task, (), {})], {})
        self._send(RequestKind.PACKAGE, [task], [b"", index, body], SCHEDULE_CLIENT, taker, now)

    def publish(self, topic: str, value: object, taker: Taker, now: float) -> None:
        """Publish a value of MessagePack, whatever the policy says. Raises TaskEngineError."""
        body = msgspec.msgpack.encode([topic, value])
        self._send(RequestKind.PUBLISH, [], [b"", body], None, taker, now)

    def _send(
        self, kind: RequestKind, names: list[str], frames: list[bytes], name: str | None, taker: Taker, now: float
    ) -> None:
        # no connection has this identity
        origin = self._calls.origins.of(SCHEDULE_CLIENT, b"", self._calls.clock.now())
        request = Request(kind, next(self._serials), SCHEDULE_CLIENT, names)

        def read(lanes: Mapping[str, str]) -> Package:
            package = read_package((), request, frames, lanes, self._data_workers, origin)
            package.taker = taker
            return package

        self._calls.admit_own(read, name, now)


class Scheduler:
    """Runs the periodic tasks by `client`.

    `say` prints a line, `is_held` tells whether no run may begin now, and `monotonic` the time in ns.
    """

    def __init__(
        self,
        client: OwnClient,
        wall: WallClock,
        say: Callable[[str], None],
        is_held: Callable[[], bool],
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._client = client
        self._wall = wall
        self._say = say
        self._is_held = is_held
        self._monotonic = monotonic
        self._schedule = Schedule(LocalZone())
        self._failing: set[str] = set()
        self._publishing: set[str] = set()
        self._waits_for_clock = False
        self.due = math.inf
        """When `run` is to be called at the latest, in s of the monotonic clock."""

    def learn(self, tasks: Iterable[TaskInfo]) -> None:
        """Replace the periodic tasks."""
        states = [task.schedule for task in tasks if task.schedule is not None]
        now = self._now(goes_by_wall=any(not state.every for state in states))
        self._schedule.learn(states, now)
        self._plan(now)

    def run(self, now: float) -> None:
        """Have called what is due; to be called at `due`, and now and then, since somebody may set the wall clock."""
        if self._schedule.is_empty:
            return
        if self._schedule.goes_by_wall and self._wall.has_moved():
            self._schedule.move(LocalZone(), self._now())
        moment = self._now()
        for task in self._schedule.look(moment, is_held=self._is_held()):
            try:
                self._client.call(task, partial(self._take, task), now)
            except TaskEngineError as error:
                self._end(task, b"", error)
        self._plan(moment)

    def stop(self) -> None:
        """Begin no run any more."""
        self._schedule.learn((), self._now())
        self.due = math.inf

    def states(self) -> dict[str, ScheduleState]:
        """Return how the tasks stand, by their names."""
        if self._schedule.is_empty:
            return {}
        return {state.task: state for state in self._schedule.states(self._now())}

    def _now(self, *, goes_by_wall: bool = False) -> ClockReading:
        wall = self._wall.now() if goes_by_wall or self._schedule.goes_by_wall else None
        return ClockReading(self._monotonic(), wall)

    def _plan(self, now: ClockReading) -> None:
        due = self._schedule.due(now)
        self.due = math.inf if due is None else due / NS
        waits = self._schedule.goes_by_wall and now.wall is None
        if waits != self._waits_for_clock:
            self._waits_for_clock = waits
            what = "Tasks with at or cron wait until the machine's clock is set" if waits else "The clock is set"
            self._say(f"[ROUTER-{os.getpid()}(SCHEDULE)] {what}")

    def _take(self, task: str, package: Package) -> None:
        """Take the answer to a call."""
        body = package.results.join()
        self._end(task, body, error_of(body) if package.results.failed else None)

    def _end(self, task: str, body: bytes, error: TaskEngineError | None) -> None:
        last = brief(body) if error is None else shortened(text_of_failure(error), BRIEF)
        state = self._schedule.ended(task, self._now(), is_failure=error is not None, last=last)
        if error is None:
            self._failing.discard(task)
        elif task not in self._failing:  # once until it works again
            self._failing.add(task)
            self._say(f"[ROUTER-{os.getpid()}(SCHEDULE)] {task} fails: {text_of_failure(error)}")
        if state is not None:
            self._publish(state, body, error)

    def _publish(self, state: ScheduleState, body: bytes, error: TaskEngineError | None) -> None:
        """Publish the result of a run, unless the data worker has not taken the one before."""
        topic = SCHEDULE_TOPICS + state.task
        if topic in self._publishing:
            return
        self._publishing.add(topic)
        value = published(state, body, error)
        now = self._monotonic() / NS
        try:
            self._client.publish(topic, value, lambda package: self._publishing.discard(topic), now)
        except TaskEngineError:  # there is no data worker, or no room; the next run tells again
            self._publishing.discard(topic)


def brief(body: bytes) -> str:
    """Return a result as a short text; of lists, maps and the like only how many bytes they have."""
    first = body[0]
    if first < 0x80 or first in _SCALARS or first in _SHORT_TEXTS:
        return shortened(str(_fastpath.unpack(body, 1, bytes)[0]), BRIEF)
    return f"{len(body)} bytes"


def text_of_failure(error: TaskEngineError) -> str:
    """Return an error as a text that begins with its type."""
    kind = type(error).__name__
    return str(error) if error.fields.get("type") else f"{kind}: {error}"


def published(state: ScheduleState, body: bytes, error: TaskEngineError | None) -> dict[str, Any]:
    """Return what is published of a run; `result` is nil where it has more than FEED_BYTES."""
    value: dict[str, Any] = {"ok": error is None, "result": None, "error": None}
    if error is not None:
        kind = error.fields.get("type") or type(error).__name__
        value["error"] = {"type": kind, "message": error.message}
    elif len(body) <= FEED_BYTES:
        value["result"] = msgspec.Raw(body)
    counts = {"runs": state.runs, "failed": state.failed, "skipped": state.skipped}
    return value | {"took": state.took, **counts, "due": state.due}
