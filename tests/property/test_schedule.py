"""Periodic tasks: whatever the clocks do, no run is lost, doubled, or at a wrong time."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskengine.protocol.messages import ScheduleState
from taskengine.registry.timetable import NextTime, next_time
from taskengine.router.schedule import NS, ClockReading, Schedule

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
"""Whose clock goes forward by half an hour."""
BEGIN = datetime(2026, 10, 24, 12, 0, tzinfo=BERLIN).timestamp()
"""Half a day before the clock is put back."""
TASKS = {
    "tick": ScheduleState("tick", every=10.0),
    "tock": ScheduleState("tock", every=0.7),
    "wake": ScheduleState("wake", at="02:30"),
    "hour": ScheduleState("hour", cron="0 * * * *"),
}


def at(text: str, zone: tzinfo) -> NextTime:
    return next_time(ScheduleState("x", at=text), zone)


def cron(text: str, zone: tzinfo) -> NextTime:
    return next_time(ScheduleState("x", cron=text), zone)


class Life(RuleBasedStateMachine):
    """A schedule whose clocks go on, and whose wall clock somebody sets."""

    def __init__(self) -> None:
        super().__init__()
        self.monotonic, self.wall, self.is_set = 1000 * NS, BEGIN, False
        self.schedule = Schedule(BERLIN)
        self.schedule.learn(TASKS.values(), self.now)
        self.running: set[str] = set()
        self.is_stepped = False
        self.set_at = 0.0

    @property
    def now(self) -> ClockReading:
        return ClockReading(self.monotonic, self.wall if self.is_set else None)

    @rule(seconds=st.floats(0.0, 30.0) | st.floats(0.0, 7200.0), is_held=st.booleans())
    def go(self, seconds: float, is_held: bool) -> None:
        self.monotonic += round(seconds * NS)
        self.wall += seconds
        begun = self.schedule.look(self.now, is_held=is_held)
        assert not (is_held and begun)
        assert self.running.isdisjoint(begun)
        self.running |= set(begun)

    @rule(seconds=st.floats(-1e5, 1e5))
    def step(self, seconds: float) -> None:
        self.wall += seconds
        self.is_stepped = self.is_stepped or self.is_set

    @precondition(lambda self: not self.is_set)
    @rule()
    def set_clock(self) -> None:
        self.is_set, self.set_at = True, self.wall
        assert not set(self.schedule.look(self.now)) & {"wake", "hour"}

    @precondition(lambda self: self.running)
    @rule(data=st.data(), is_failure=st.booleans())
    def end(self, data: st.DataObject, is_failure: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(name)
        told = self.schedule.ended(name, self.now, is_failure=is_failure, last="")
        assert told is not None

    @rule()
    def reload(self) -> None:
        self.schedule.learn(TASKS.values(), self.now)

    @invariant()
    def every_time_ran_or_was_counted(self) -> None:
        for state in self.schedule.states(self.now):
            assert state.is_running == (state.task in self.running)
            dealt = state.runs + state.skipped + state.is_running
            if state.every:
                period = round(state.every * NS)
                assert dealt == self.monotonic // period - 1000 * NS // period
            elif not self.is_set:
                assert (dealt, state.due) == (0, None)
            elif not self.is_stepped:
                assert dealt == self.passed(state)

    def passed(self, state: ScheduleState) -> int:
        """How often the time has come since the clock was set."""
        following, count, now = next_time(state, BERLIN), 0, self.set_at
        while (now := following(now) or float("inf")) <= self.wall:
            count += 1
        return count


TestLife = Life.TestCase


@given(
    text=st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
    now=st.floats(1.6e9, 2e9),
    zone=st.sampled_from([UTC, BERLIN, LORD_HOWE, ZoneInfo("America/Sao_Paulo")]),
)
def test_the_next_time_is_the_first_one_after_now_within_25_hours(text: str, now: float, zone: tzinfo) -> None:
    following = at(text, zone)
    found = following(now)
    assert found is not None
    assert now < found <= now + 25.5 * 3600
    assert following(found - 1) == found
    shown = datetime.fromtimestamp(found, zone)
    exists = shown.strftime("%H:%M") == text
    assert exists or (shown.utcoffset() != datetime.fromtimestamp(found - 1, zone).utcoffset())


@given(
    minute=st.sampled_from(["0", "7", "*/15", "0,30", "10-20"]),
    hour=st.sampled_from(["*", "2", "*/6", "2,3"]),
    now=st.floats(1.6e9, 2e9),
    zone=st.sampled_from([UTC, BERLIN, LORD_HOWE]),
)
def test_a_cron_text_always_goes_on(minute: str, hour: str, now: float, zone: tzinfo) -> None:
    following = cron(f"{minute} {hour} * * *", zone)
    found = now
    for _ in range(4):
        later = following(found)
        assert later is not None
        assert later > found
        found = later
