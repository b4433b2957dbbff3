"""Decides when periodic tasks run. Pure.

Theory of operation. `look` takes the time and returns the tasks that are to run now; `ended` takes the end of a run.
Each task has one run at a time: a time that comes while the last run goes on is skipped, and so is one that was missed.
Both are counted.

Tasks with a period run at its multiples on the monotonic clock. Periods therefore do not drift, and another router, or
another engine on the same machine, goes on with the same times. Where several times have passed since the last look,
the last one runs.

The others go by the wall clock, and wait until somebody has set it. A time that passed more than `LATE_S` ago is
missed. A clock that is put back by no more than `BACK_S` repeats nothing. One that is put back further was wrong
before, and all begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import tzinfo
from typing import Final, NamedTuple

import msgspec

from taskengine.protocol.messages import ScheduleState
from taskengine.registry.timetable import NextTime, next_time

LATE_S: Final = 60.0
"""How late, in s, a task may run whose time the wall clock has jumped over, or at which the router was busy."""
BACK_S: Final = 3 * 3600.0
"""How far the wall clock may be put back without that what it has shown since is void; as with cron(8)."""
MOST_MISSED: Final = 1000
"""How many missed times are counted one by one, where the clock jumps; the others are left out."""
NS: Final = 10**9


class ClockReading(NamedTuple):
    """A moment: CLOCK_MONOTONIC in ns, and the wall clock in s since 1970, None while nobody has set it."""

    monotonic: int
    wall: float | None = None


class Passed(NamedTuple):
    """Times that have passed since the last look: how many were missed, and whether one more is to run now."""

    missed: int
    is_due: bool


NOTHING_PASSED: Final = Passed(0, False)


class PeriodGrid:
    """The multiples of a period of so many ns, on the monotonic clock."""

    def __init__(self, period: int, now: ClockReading) -> None:
        self._period = period
        self._next = (now.monotonic // period + 1) * period

    def due(self, now: ClockReading) -> int | None:
        """Return the next time, in ns of the monotonic clock."""
        return self._next

    def passed(self, now: ClockReading) -> Passed:
        """Return the times that have passed, and go on to the next one."""
        if now.monotonic < self._next:
            return NOTHING_PASSED
        times = (now.monotonic - self._next) // self._period + 1
        self._next += times * self._period
        return Passed(times - 1, True)


class WallTimes:
    """Times of the wall clock, as `following` tells them."""

    def __init__(self, following: NextTime, now: ClockReading) -> None:
        self._following = following
        self._next: float | None = None
        self._latest = -math.inf
        """The latest time that the clock has shown, since it was put back far."""
        self.passed(now)

    def due(self, now: ClockReading) -> int | None:
        """Return the next time, in ns of the monotonic clock; None where there is none, or the clock is not set."""
        if now.wall is None or self._next is None:
            return None
        return now.monotonic + math.ceil((self._next - now.wall) * NS)

    def passed(self, now: ClockReading) -> Passed:
        """Return the times that have passed, and go on to the next one."""
        wall = now.wall
        if wall is None:
            return NOTHING_PASSED
        if self._latest - wall > BACK_S or self._latest == -math.inf:
            self._latest, self._next = wall, self._following(wall)
            return NOTHING_PASSED
        self._latest = max(self._latest, wall)
        times, last = 0, -math.inf
        while self._next is not None and self._next <= wall:
            times, last = times + 1, self._next
            self._next = self._following(last if times < MOST_MISSED else wall)
        is_due = wall - last <= LATE_S
        return Passed(times - is_due, is_due)


class _Periodic:
    """A periodic task, and how its runs went."""

    def __init__(self, state: ScheduleState, times: PeriodGrid | WallTimes) -> None:
        self.state = state
        self.times = times
        self.is_gone = False
        """Whether it is no task any more, and only its run is left."""
        self.began: int | None = None


class Schedule:
    """The periodic tasks of an engine, which run at times of this time zone."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._known: dict[str, _Periodic] = {}

    def learn(self, states: Iterable[ScheduleState], now: ClockReading) -> None:
        """Replace the periodic tasks. One whose times stay the same goes on, with its counts."""
        wanted = {state.task: state for state in states}
        for name, known in list(self._known.items()):
            known.is_gone = name not in wanted
            if known.is_gone and not known.state.is_running:
                del self._known[name]
        for name, state in wanted.items():
            before = self._known.get(name)
            if before is None:
                self._known[name] = _Periodic(state, self._times(state, now))
            elif (before.state.every, before.state.at, before.state.cron) != (state.every, state.at, state.cron):
                before.times = self._times(state, now)
                before.state = msgspec.structs.replace(before.state, every=state.every, at=state.at, cron=state.cron)

    def move(self, zone: tzinfo, now: ClockReading) -> None:
        """Go by another time zone from now on."""
        self._zone = zone
        for known in self._known.values():
            if not known.state.every:
                known.times = self._times(known.state, now)

    def look(self, now: ClockReading, *, is_held: bool = False) -> list[str]:
        """Return the tasks that are to run now.

        With `is_held` none may: a run that was begun before this router may still go on.
        """
        wanted = []
        for name, known in self._known.items():
            missed, is_due = known.times.passed(now)
            if not (missed or is_due) or known.is_gone:
                continue
            state = known.state
            runs = is_due and not state.is_running and not is_held
            skipped = state.skipped + missed + (is_due and not runs)
            if runs:
                known.began = now.monotonic
                wanted.append(name)
            known.state = msgspec.structs.replace(state, skipped=skipped, is_running=state.is_running or runs)
        return wanted

    def ended(self, name: str, now: ClockReading, *, is_failure: bool, last: str) -> ScheduleState | None:
        """Take the end of a run, with a short text of its result or error; return how the task stands now.

        Return None for a task that is none any more.
        """
        known = self._known[name]
        state, began = known.state, known.began or now.monotonic
        known.state = msgspec.structs.replace(
            state,
            is_running=False,
            runs=state.runs + 1,
            failed=state.failed + is_failure,
            took=(now.monotonic - began) / NS,
            last=last,
        )
        if known.is_gone:
            del self._known[name]
            return None
        return self._told(known, now)

    def due(self, now: ClockReading) -> int | None:
        """Return when to look next, in ns of the monotonic clock, unless the wall clock is set before; None for never.

        A task that runs, or waits for that, does not keep the others from their times.
        """
        times = (known.times.due(now) for known in self._known.values() if not known.is_gone)
        return min((due for due in times if due is not None), default=None)

    @property
    def is_empty(self) -> bool:
        """Return whether there is no periodic task."""
        return not self._known

    @property
    def goes_by_wall(self) -> bool:
        """Return whether a task goes by the wall clock."""
        return any(not known.state.every for known in self._known.values())

    def states(self, now: ClockReading) -> list[ScheduleState]:
        """Return how each task stands."""
        return [self._told(known, now) for known in self._known.values() if not known.is_gone]

    def _told(self, known: _Periodic, now: ClockReading) -> ScheduleState:
        due = known.times.due(now)
        ago = None if known.began is None else (now.monotonic - known.began) / NS
        soon = None if due is None else max(0.0, (due - now.monotonic) / NS)
        return msgspec.structs.replace(known.state, due=soon, ago=ago)

    def _times(self, state: ScheduleState, now: ClockReading) -> PeriodGrid | WallTimes:
        if state.every:
            return PeriodGrid(round(state.every * NS), now)
        return WallTimes(next_time(state, self._zone), now)
