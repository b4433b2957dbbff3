"""Limits hold for every command, from where an output is and how fast, and after every pause."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskengine import Origin
from taskengine_hardware.device_config import DeviceLimits
from taskengine_hardware.motion import FRAME_S
from taskengine_hardware.movements import PAUSE_S
from tests.hardware.lane import Lane, call

ME = Origin("me", b"me", b"me")
LONG = {"lease": 3600}
DEVICES: dict[str, Any] = {
    "arm": {"type": "AngularServo", "pin": 4, "limits": {"speed": 100.0, "acceleration": 200.0}, **LONG},
    "slow": {"type": "AngularServo", "pin": 5, "limits": {"speed": 100.0}, **LONG},
    "wheel": {"type": "Motor", "forward": 6, "backward": 7, "limits": {"speed": 2.0, "acceleration": 4.0}, **LONG},
    "neck": {"type": "Servo", "pin": 8, "limits": {"speed": 1.0}, "home": 0.5, **LONG},
    "fan": {"type": "Motor", "forward": 9, "backward": 10, "soft_start": 2.0, **LONG},
    "base": {"type": "Robot", "left": [11, 12], "right": [13, 14], "soft_start": 1.0, **LONG},
    "glow": {"type": "PWMLED", "pin": 15, "soft_start": 1.0},
    "mixer": {"type": "Motor", "forward": 16, "backward": 17, "limits": {"speed": 9.0}, "soft_start": 0.5, **LONG},
}


class Watched(Lane):
    """A lane that looks at every value of an output as it is written."""

    def __init__(self, name: str) -> None:
        super().__init__(DEVICES)
        self.watched = self.output(name)
        self.limits = cast(DeviceLimits, self.watched.limits)
        self.now = 10.0
        self.set_back = 0.0
        """How much the clock was."""
        self._looks: list[tuple[float, float, float]] = []
        """When something was written, by a true clock and by the output's, and what."""
        if self.watched.value is not None:
            self._looks.append((self.now, 0.0, cast(float, self.watched.value)))
        self.watched.write = self.look

    def look(self, value: Any) -> None:
        """Hold the last values against the limits."""
        clock = self.watched.clock
        if self._looks and clock == self._looks[-1][1]:
            assert value == pytest.approx(self._looks[-1][2], abs=1e-6)
            self._looks[-1] = self.now + self.set_back, clock, value
            return
        self._looks.append((self.now + self.set_back, clock, value))
        assert self.limits.least <= value <= self.limits.most
        if len(self._looks) > 1:
            (before, began, start), (now, ended, end) = self._looks[-2:]
            took = ended - began
            assert took <= now - before + 1e-9
            assert abs(end - start) <= self.limits.speed * took + 1e-6
            if self.limits.acceleration < math.inf:
                assert self._is_gentle(end - start, took, has_paused=now - before > PAUSE_S)

    def _is_gentle(self, way: float, took: float, *, has_paused: bool) -> bool:
        """Whether it is no more sudden than it may be since the value before, or, after a pause, than from rest."""
        pull, slack = self.limits.acceleration, 1e-6 / took + 1e-6
        if has_paused and abs(way / took) <= pull * took / 2 + slack:
            return True
        speed, before = 0.0, 0.0
        if len(self._looks) > 2:
            (_, first, start), (_, second, end) = self._looks[-3:-1]
            before = second - first
            speed, slack = (end - start) / before, slack + 1e-6 / before
        most: float = pull * (before + took) / 2 + slack
        return abs(way / took - speed) <= most

    def pass_time(self, duration: float) -> None:
        """Tick whenever it is due."""
        end = self.now + duration
        while (due := max(self.now, self.control.due)) <= end:
            self.now = due
            self.control.tick(self.now)
        self.now = end

    def finish(self) -> None:
        """Tick until nothing moves."""
        for _ in range(2000):
            if self.watched.motion is None:
                return
            self.pass_time(FRAME_S)
        raise AssertionError("it never arrives")

    def obey(self, what: str, to: float, number: float) -> None:
        """Do one of the things below; `to` is a share of the range."""
        control, output = self.control, self.watched
        least, most = self.limits.least, self.limits.most
        value = least + to * (most - least)
        if what == "set":
            control.command(output, value, ME, self.now)
        elif what == "move":
            control.move(output, value, number, "smooth", ME, self.now)
        elif what == "sweep":
            control.sweep(output, value, (value + most) / 2, 8 + number, 2, ME, self.now)
        elif what == "halt":
            control.halt(output, ME, self.now)
        elif what == "wait":
            self.pass_time(number)
        elif what == "pause":
            self.now += number
        elif what == "back":
            self.now -= number
            self.set_back += number


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["set", "move", "sweep", "halt", "wait", "wait", "pause", "back"]),
        st.floats(0, 1),
        st.one_of(st.floats(0, 0.1), st.floats(0, 3)),
    ),
    max_size=25,
)
SERVOS = ["arm", "slow"]


@pytest.mark.parametrize("name", SERVOS)
@settings(max_examples=200, deadline=None)
@example([("set", 1.0, 0.0), ("wait", 0.0, 0.9), ("move", 0.0, 1.0)])
@example([("move", 1.0, 0.0), ("wait", 0.0, 0.9), ("move", 0.9, 0.0), ("wait", 0.0, 0.5), ("pause", 0.0, 0.8)])
@example([("set", 1.0, 0.0), ("wait", 0.0, 0.9), ("halt", 0.0, 0.0), ("wait", 0.0, 1.0)])
@example([("set", 1.0, 0.0), ("wait", 0.0, 0.9), ("sweep", 0.0, 0.0), ("wait", 0.0, 3.0), ("pause", 0.0, 3.0)])
@given(EVENTS)
def test_no_commands_pauses_and_clocks_break_a_limit(name: str, events: list[tuple[str, float, float]]) -> None:
    with closing(Watched(name)) as lane:
        lane.obey("set", 0.5, 0.0)
        for what, to, number in events:
            lane.obey(what, to, number)
        lane.obey("set", 0.75, 0.0)
        lane.finish()
        assert lane.watched.value == lane.limits.least + 0.75 * (lane.limits.most - lane.limits.least)


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_nor_for_a_motor(events: list[tuple[str, float, float]]) -> None:
    with closing(Watched("wheel")) as lane:
        for what, to, number in events:
            lane.obey("set" if what in ("move", "sweep", "halt") else what, to, number)
        lane.obey("set", 0.75, 0.0)
        lane.finish()
        assert lane.watched.value == 0.5


@pytest.mark.parametrize(("name", "most"), [("slow", 100 * PAUSE_S), ("arm", 200 * PAUSE_S**2 / 2)])
@pytest.mark.parametrize("what", ["set", "move", "sweep"])
def test_what_was_held_up_makes_no_leap(name: str, most: float, what: str) -> None:
    """Nor does it go on at once as fast as it was, where that may not be."""
    lane = Watched(name)
    lane.obey("set", 0.0, 0.0)
    lane.obey(what, 0.5, 0.1)
    lane.pass_time(0.5)
    before = cast(float, lane.watched.value)
    lane.now += 0.8
    lane.control.tick(lane.now)
    assert 0 < abs(cast(float, lane.watched.value) - before) <= most + 1e-6
    assert lane.watched.motion is not None


def test_what_is_told_to_stop_brakes_and_stays() -> None:
    lane = Watched("arm")
    lane.obey("set", 0.0, 0.0)
    lane.obey("set", 1.0, 0.0)
    lane.pass_time(1.0)
    lane.obey("halt", 0.0, 0.0)
    before = cast(float, lane.watched.value)
    lane.finish()
    assert cast(float, lane.watched.value) - before == pytest.approx(100**2 / 400, abs=100 * FRAME_S)


def test_a_move_that_takes_over_takes_the_time_that_it_says() -> None:
    lane = Watched("arm")
    lane.obey("set", 0.0, 0.0)
    lane.obey("set", 1.0, 0.0)
    lane.pass_time(0.5)
    assert lane.control.move(lane.watched, 40.0, 4.0, "smooth", ME, lane.now) == pytest.approx(4.0)
    lane.pass_time(3.9)
    assert lane.watched.motion is not None
    lane.pass_time(0.15)
    assert [lane.watched.motion, lane.watched.value] == [None, 40.0]


def test_a_stop_and_a_rest_go_before_limits() -> None:
    lane = Lane(DEVICES)
    lane.set("wheel", 1.0, 10.0, ME)
    lane.run(10.0, 11.0)
    assert lane.value("wheel") == 1.0
    lane.control.bring_to_rest(lane.output("wheel"), ME, 0, 11.0)
    assert lane.value("wheel") == 0.0
    lane.set("wheel", 1.0, 12.0, ME)
    lane.run(12.0, 13.0)
    lane.control.stop(13.0)
    assert lane.value("wheel") == 0.0


def test_a_servo_begins_at_its_home() -> None:
    lane = Lane(DEVICES)
    assert lane.output("neck").position == 0.5
    assert lane.output("slow").position is None
    for _ in range(2):
        lane.writes.clear()
        lane.set("neck", -0.5, 10.0, ME)
        lane.run(10.0, 11.2)
        ways = [cast(float, value) for _, value in lane.writes]
        assert 0.5 - 2 * FRAME_S <= ways[0] <= 0.5
        assert ways[-1] == -0.5
        assert len(ways) >= 1 / FRAME_S
        lane.set("neck", None, 12.0, ME)


@pytest.mark.parametrize(
    ("name", "goal", "takes"), [("fan", -1.0, 2.0), ("base", (1.0, -0.5), 1.0), ("glow", 0.5, 0.5)]
)
def test_what_starts_softly_grows_and_is_off_at_once(name: str, goal: Any, takes: float) -> None:
    lane = Lane(DEVICES)
    output = lane.output(name)
    lane.control.command(output, goal, ME, 10.0)
    lane.run(10.0, 10.0 + takes / 2)
    numbers = output.value if isinstance(output.value, tuple) else (cast(float, output.value),)
    sizes = [abs(number) for number in numbers]
    assert max(sizes) == pytest.approx(max(map(abs, goal if isinstance(goal, tuple) else (goal,))) / 2, abs=0.05)
    lane.run(10.0 + takes / 2, 10.0 + takes + 2 * FRAME_S)
    assert output.value == goal
    assert output.motion is None
    off: Any = (0.0, 0.0) if isinstance(goal, tuple) else 0.0
    lane.control.command(output, off, ME, 14.0)
    assert output.value == off
    assert output.motion is None


def test_a_soft_start_bounds_the_speed_limit_too() -> None:
    lane = Lane(DEVICES)
    lane.set("mixer", 1.0, 10.0, ME)
    lane.run(10.0, 10.25)
    assert cast(float, lane.value("mixer")) == pytest.approx(0.5, abs=0.05)


def test_a_ramp_goes_on_from_where_it_is() -> None:
    lane = Lane(DEVICES)
    now = 10.0
    while now < 13.0:  # a stream of commands
        lane.set("fan", 1.0, now, ME)
        lane.run(now, now + 0.1)
        now += 0.1
    ways = [cast(float, value) for _, value in lane.writes]
    assert ways == sorted(ways)
    assert ways[-1] == 1.0
    lane.set("fan", -1.0, 14.0, ME)
    assert lane.value("fan") == 0.0


def test_limits_that_exclude_rest_do_not_keep_an_output_from_it() -> None:
    """A motor that is to run at a fifth of its speed at least stands still when its lease has ended."""
    limits = {"value": [0.2, 1], "speed": 100}
    lane = Lane(
        {
            "wheel": {"type": "Motor", "forward": 5, "backward": 6, "limits": limits},
            "glow": {"type": "PWMLED", "pin": 12, "limits": limits, "lease": 0.5},
        }
    )
    for name in ("wheel", "glow"):
        lane.set(name, 0.5, 1.0, call("me", 1.0))
    lane.run(1.0, 1.3)
    assert (lane.value("wheel"), lane.value("glow")) == (0.5, 0.5)
    lane.run(1.3, 2.0)
    assert (lane.value("wheel"), lane.value("glow")) == (0.0, 0.0)
