"""The schedule of periodic tasks: times and ends go in, tasks that are to run come out."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from taskengine.protocol.messages import ScheduleState
from taskengine.router.schedule import BACK_S, LATE_S, MOST_MISSED, NS, ClockReading, Schedule

MORNING = datetime(2026, 11, 30, 7, 0, tzinfo=UTC).timestamp()


class Clocked:
    """A schedule, and both clocks; what is to run ends at once unless `holds`."""

    def __init__(self, *states: ScheduleState, monotonic: float = 100.0, wall: float | None = MORNING) -> None:
        self.monotonic, self.wall = monotonic, wall
        self.schedule = Schedule(UTC)
        self.holds = False
        self.schedule.learn(states, self.now)

    @property
    def now(self) -> ClockReading:
        return ClockReading(round(self.monotonic * NS), self.wall)

    def go(self, seconds: float, wall: float | None = None) -> list[str]:
        """Look so much later; the wall clock goes by `wall`, or as far."""
        self.monotonic += seconds
        if self.wall is not None:
            self.wall += seconds if wall is None else wall
        return self.look()

    def look(self, *, is_held: bool = False) -> list[str]:
        wanted = self.schedule.look(self.now, is_held=is_held)
        for name in [] if self.holds else wanted:
            self.end(name)
        return wanted

    def end(self, name: str, *, is_failure: bool = False) -> ScheduleState | None:
        return self.schedule.ended(name, self.now, is_failure=is_failure, last="ok")

    def state(self, name: str = "x") -> ScheduleState:
        return next(state for state in self.schedule.states(self.now) if state.task == name)


EVERY = ScheduleState("x", every=10.0)
AT = ScheduleState("x", at="07:30")


def test_a_period_runs_at_its_multiples_however_late_the_looks_are() -> None:
    clocked = Clocked(EVERY, monotonic=103.0)
    assert clocked.go(6.9) == []
    assert clocked.go(0.3) == ["x"]
    assert clocked.go(9.7) == []
    assert clocked.go(0.2) == ["x"]
    assert clocked.state().due == pytest.approx(9.9)
    assert clocked.state().skipped == 0


def test_a_router_that_begins_anew_goes_on_with_the_same_times() -> None:
    for start in (100.0, 104.2, 109.999):
        assert Clocked(EVERY, monotonic=start).schedule.due(ClockReading(0)) == 110 * NS


def test_a_period_of_a_tenth_does_not_drift_in_ten_million_of_them() -> None:
    clocked = Clocked(ScheduleState("x", every=0.1), monotonic=0.0)
    clocked.go(1e6)
    assert clocked.schedule.due(clocked.now) == 10**6 * NS + NS // 10


def test_of_several_times_that_have_passed_one_runs_and_the_others_are_skipped_and_counted() -> None:
    clocked = Clocked(EVERY)
    assert clocked.go(35.0) == ["x"]
    assert (clocked.state().runs, clocked.state().skipped) == (1, 2)
    assert clocked.state().due == pytest.approx(5.0)


def test_a_task_never_runs_twice_at_once_and_its_next_times_are_counted() -> None:
    clocked = Clocked(EVERY)
    clocked.holds = True
    assert clocked.go(10.0) == ["x"]
    assert clocked.go(10.0) == []
    assert clocked.go(10.0) == []
    assert clocked.state().is_running
    assert clocked.state().skipped == 2
    ended = clocked.end("x")
    assert ended is not None
    assert (ended.runs, ended.took, ended.ago, ended.last) == (1, 20.0, 20.0, "ok")
    assert clocked.go(10.0) == ["x"]


def test_while_a_run_of_an_earlier_router_may_go_on_none_begins() -> None:
    clocked = Clocked(EVERY)
    clocked.monotonic += 10
    assert clocked.look(is_held=True) == []
    assert (clocked.state().runs, clocked.state().skipped) == (0, 1)
    assert clocked.go(10.0) == ["x"]


def test_failures_are_counted() -> None:
    clocked = Clocked(EVERY)
    clocked.holds = True
    clocked.go(10.0)
    clocked.end("x", is_failure=True)
    assert (clocked.state().runs, clocked.state().failed) == (1, 1)


def test_a_time_of_day_comes_when_the_clock_shows_it() -> None:
    clocked = Clocked(AT)
    assert clocked.state().due == 1800.0
    assert clocked.go(1799.0) == []
    assert clocked.go(1.0) == ["x"]
    assert clocked.state().due == 86400.0


def test_a_time_of_day_waits_until_the_clock_is_set_and_what_was_before_is_not_missed() -> None:
    clocked = Clocked(AT, wall=None)
    assert clocked.state().due is None
    assert clocked.schedule.due(clocked.now) is None
    assert clocked.go(1e6) == []
    clocked.wall = MORNING + 1000
    assert clocked.look() == []
    assert clocked.state().due == 800.0
    assert clocked.go(800.0) == ["x"]
    assert clocked.state().skipped == 0


def test_a_clock_that_jumps_a_little_over_the_time_makes_it_late_and_further_it_is_missed() -> None:
    clocked = Clocked(AT)
    assert clocked.go(1.0, wall=1800.0 + LATE_S) == ["x"]
    clocked = Clocked(AT)
    assert clocked.go(1.0, wall=1801.0 + LATE_S) == []
    assert (clocked.state().runs, clocked.state().skipped) == (0, 1)
    assert clocked.state().due == pytest.approx(86400.0 - LATE_S - 1)


def test_a_clock_that_is_put_back_an_hour_repeats_nothing() -> None:
    clocked = Clocked(AT)
    assert clocked.go(1800.0) == ["x"]
    assert clocked.go(1.0, wall=-3600.0) == []
    assert clocked.go(3601.0) == []
    assert clocked.go(86400.0 - 1) == ["x"]


def test_a_clock_that_was_wrong_by_years_is_forgotten() -> None:
    clocked = Clocked(AT, wall=MORNING + 14 * 365 * 86400)
    assert clocked.go(1.0, wall=-14 * 365 * 86400.0) == []
    assert clocked.state().due == 1800.0
    assert clocked.go(1800.0) == ["x"]
    assert BACK_S < 86400


def test_a_clock_that_jumps_by_years_counts_a_limited_number_of_times() -> None:
    clocked = Clocked(ScheduleState("x", cron="* * * * *"))
    assert clocked.go(1.0, wall=10 * 365 * 86400.0) in ([], ["x"])
    assert clocked.state().skipped in (MOST_MISSED - 1, MOST_MISSED)
    assert clocked.go(60.0) == ["x"]


def test_a_machine_that_slept_misses_the_times_of_the_night() -> None:
    clocked = Clocked(ScheduleState("x", cron="0 * * * *"))
    assert clocked.go(1.0, wall=8 * 3600 + 600.0) == []
    assert clocked.state().skipped == 8
    assert clocked.go(3000.0) == ["x"]


def test_the_times_of_another_zone_are_those_from_then_on() -> None:
    clocked = Clocked(AT, EVERY.__class__("y", every=10.0))
    clocked.schedule.move(ZoneInfo("Europe/Berlin"), clocked.now)
    assert clocked.state().due == 23.5 * 3600
    assert clocked.state("y").due == 10.0


def test_a_reload_keeps_the_counts_and_the_times_of_what_stays() -> None:
    clocked = Clocked(EVERY, msgspec.structs.replace(AT, task="y"))
    clocked.go(10.0)
    clocked.schedule.learn([EVERY, ScheduleState("y", every=3.0)], clocked.now)
    assert (clocked.state().runs, clocked.state().due) == (1, 10.0)
    assert (clocked.state("y").timing, clocked.state("y").due) == ("every 3 s", 1.0)


def test_a_task_that_is_gone_runs_no_more_and_its_run_is_not_told_of() -> None:
    clocked = Clocked(EVERY)
    clocked.holds = True
    clocked.go(10.0)
    clocked.schedule.learn([], clocked.now)
    assert clocked.go(100.0) == []
    assert clocked.schedule.states(clocked.now) == []
    assert clocked.schedule.due(clocked.now) is None
    assert clocked.end("x") is None
    assert clocked.schedule.is_empty


def test_a_task_that_comes_back_while_its_run_goes_on_does_not_run_twice() -> None:
    clocked = Clocked(EVERY)
    clocked.holds = True
    clocked.go(10.0)
    clocked.schedule.learn([], clocked.now)
    clocked.schedule.learn([EVERY], clocked.now)
    assert clocked.go(10.0) == []
    assert clocked.end("x") is not None
    assert clocked.go(10.0) == ["x"]


def test_the_next_look_is_due_at_the_next_time_of_any_task() -> None:
    clocked = Clocked(EVERY, msgspec.structs.replace(AT, task="y"), monotonic=100.0)
    assert clocked.schedule.due(clocked.now) == 110 * NS
    clocked.monotonic, clocked.wall = 101.0, MORNING + 1799.5
    assert clocked.schedule.due(clocked.now) == 101.5 * NS
    assert clocked.schedule.goes_by_wall
    assert not Clocked(EVERY).schedule.goes_by_wall


@pytest.mark.parametrize(
    ("state", "text"),
    [(EVERY, "every 10 s"), (AT, "at 07:30"), (ScheduleState("x", cron="0 7 * * *"), "cron 0 7 * * *")],
)
def test_when_a_task_runs_is_said_in_words(state: ScheduleState, text: str) -> None:
    assert state.timing == text
