"""The state machine of a lane, without pins and without a clock."""

from __future__ import annotations

import itertools
import math
from contextlib import closing, suppress
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskengine import BadArguments, NotAllowed, Origin, TaskFailed
from taskengine_hardware import SharedState, read
from taskengine_hardware.control import Control, safe_value, seconds
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.motion import FRAME_S
from taskengine_hardware.shared_state import NEVER
from tests.hardware.lane import Lane as AnyLane

LAPTOP, TABLET = Origin("laptop", b"1", b"laptop"), Origin("tablet", b"2", b"tablet")
DEVICES: dict[str, Any] = {
    "pan": {"type": "AngularServo", "pin": 4},
    "hold": {"type": "Servo", "pin": 5, "safe": "hold", "lease": "strict"},
    "grip": {"type": "Servo", "pin": 6, "safe": -1.0},
    "slow": {"type": "AngularServo", "pin": 7, "limits": {"speed": 100.0}},
    "lamp": {"type": "LED", "pin": 8},
    "base": {"type": "Robot", "left": [9, 10], "right": [11, 12]},
}
SAFE: dict[str, Value] = {
    "pan": None,
    "hold": None,
    "grip": -1.0,
    "slow": None,
    "lamp": False,
    "base": (0.0, 0.0),
}


class Lane(AnyLane):
    """The lane of these devices; without another word commands are the laptop's, which calls from this process."""

    def __init__(self, panel: SharedState | None = None) -> None:
        super().__init__(DEVICES, panel)

    def set(self, name: str, value: Any, now: float, origin: Origin = LAPTOP) -> None:
        super().set(name, value, now, origin)


@pytest.fixture
def lane() -> Lane:
    return Lane()


def test_a_command_is_written_at_once(lane: Lane) -> None:
    lane.set("pan", 30, 10.0)
    lane.set("base", [0.5, -0.5], 10.0)
    assert lane.writes == [("pan", 30.0), ("base", (0.5, -0.5))]


def test_a_lease_that_ends_brings_each_output_to_its_safe_state(lane: Lane) -> None:
    for name, value in (("pan", 30), ("hold", 0.5), ("grip", 0.25), ("lamp", True), ("base", [1, 1])):
        lane.set(name, value, 10.0)
    lane.writes.clear()
    lane.run(10.0, 10.249)
    assert lane.writes == []
    lane.run(10.25, 10.3)
    assert lane.writes == [("hold", 0.5)]
    lane.run(10.3, 10.501)
    assert lane.writes[1:] == [("pan", None), ("grip", -1.0), ("base", (0.0, 0.0))]
    assert all(end == NEVER for end in lane.panel.ends)
    lane.run(10.6, 11.0)
    assert lane.control.due == math.inf  # nothing is left to be done


def test_the_panel_never_says_safe_before_the_pins_are(lane: Lane) -> None:
    base = lane.control.find("base")
    told: list[Value] = []
    base.write = lambda value: told.append(lane.panel.last(base.place, base.role))
    lane.set("base", [1, 1], 10.0)
    lane.set("base", [0, 0], 10.1)
    lane.set("base", [0.5, 0], 10.2)
    assert told == [(1.0, 1.0), (1.0, 1.0), (0.5, 0.0)]
    assert lane.panel.last(base.place, base.role) == (0.5, 0.0)


def test_commands_and_renewals_extend_a_lease(lane: Lane) -> None:
    pan = lane.control.find("pan")
    lane.set("pan", 30, 10.0)
    lane.run(10.0, 10.4)
    lane.set("pan", 31, 10.4)
    lane.run(10.4, 10.8)
    lane.control.acquire([pan], LAPTOP, 10.8)
    lane.run(10.8, 11.29)
    assert ("pan", None) not in lane.writes
    lane.run(11.3, 11.31)
    assert lane.writes[-1] == ("pan", None)


def test_a_command_that_is_refused_extends_nothing(lane: Lane) -> None:
    lane.set("pan", 30, 10.0)
    with pytest.raises(BadArguments):
        lane.set("pan", 91, 10.4)
    lane.run(10.4, 10.51)
    assert lane.writes[-1] == ("pan", None)


def test_another_is_kept_out_while_a_lease_is_exclusive(lane: Lane) -> None:
    pan = lane.control.find("pan")
    lane.control.acquire([pan], LAPTOP, 10.0, exclusive=True)
    for refused in (
        lambda: lane.set("pan", 1, 10.1, TABLET),
        lambda: lane.control.acquire([pan], TABLET, 10.1),
        lambda: lane.control.move(pan, 5.0, 1.0, "sine", TABLET, 10.1),
    ):
        with pytest.raises(NotAllowed, match="another client holds pan"):
            refused()
    lane.set("pan", 2, 10.1)
    lane.set("hold", 0.1, 10.1, TABLET)
    lane.control.admission.release([pan], TABLET)
    with pytest.raises(NotAllowed):
        lane.set("pan", 1, 10.2, TABLET)
    lane.control.admission.release([pan], LAPTOP)
    lane.set("pan", 1, 10.2, TABLET)


def test_exclusiveness_ends_with_the_lease_even_before_anybody_looked(lane: Lane) -> None:
    lane.control.acquire([lane.control.find("pan")], LAPTOP, 10.0, exclusive=True)
    lane.set("pan", 1, 10.5, TABLET)
    with pytest.raises(BadArguments, match="lamp has no lease"):
        lane.control.acquire([lane.control.find("lamp")], LAPTOP, 10.6, exclusive=True)


def test_stopping_is_safe_at_once_and_latches(lane: Lane) -> None:
    lane.set("pan", 30, 10.0)
    lane.control.move(lane.control.find("pan"), 60.0, 5.0, "sine", LAPTOP, 10.0)
    lane.set("lamp", True, 10.0)
    lane.control.acquire([lane.control.find("grip")], LAPTOP, 10.0, exclusive=True)
    lane.writes.clear()
    lane.control.stop(10.1)
    assert dict(lane.writes) == SAFE
    assert lane.panel.unconfirmed() == []
    lane.writes.clear()
    lane.run(10.1, 12.0)
    for name, value in (("pan", 1), ("lamp", True), ("base", [1, 1])):
        with pytest.raises(NotAllowed, match=r"system\.arm"):
            lane.set(name, value, 12.0)
    with pytest.raises(NotAllowed, match=r"system\.arm"):
        lane.control.acquire([lane.control.find("pan")], LAPTOP, 12.0)
    assert lane.writes == []
    lane.control.arm(TABLET, 12.0)
    lane.set("grip", 0.5, 12.0, TABLET)
    assert lane.writes == [("grip", 0.5)]


def test_an_output_that_fails_keeps_no_other_from_being_safe(lane: Lane) -> None:
    def fail(value: Value) -> None:
        raise OSError("the pin is gone")

    lane.set("pan", 30, 10.0)
    lane.set("base", [1, 1], 10.0)
    lane.set("grip", 0.5, 10.0)
    lane.control.find("pan").write = fail
    lane.writes.clear()
    with pytest.raises(OSError, match="the pin is gone"):
        lane.control.tick(10.6)
    assert lane.writes == [("grip", -1.0), ("base", (0.0, 0.0))]
    assert [lane.panel.ends[place] != NEVER for place in (0, 2, 5)] == [True, False, False]  # the guardian sees it
    lane.writes.clear()
    with pytest.raises(OSError, match="the pin is gone"):
        lane.control.stop(10.7)
    assert dict(lane.writes) == {name: value for name, value in SAFE.items() if name != "pan"}
    assert lane.panel.unconfirmed() == [LANE]


def test_a_write_that_fails_extends_nothing(lane: Lane) -> None:
    """But what it has begun ends, too."""

    def fail(value: Value) -> None:
        if value:
            raise OSError("the pin is gone")

    pan, grip = lane.control.find("pan"), lane.control.find("grip")
    lane.set("pan", 30, 10.0)
    end = lane.panel.ends[pan.place]
    pan.write = grip.write = fail
    for name, now in (("pan", 10.3), ("grip", 10.3)):
        with pytest.raises(OSError, match="the pin is gone"):
            lane.set(name, 1, now)
    assert lane.panel.ends[pan.place] == end
    assert lane.panel.ends[grip.place] != NEVER


def test_a_stop_in_another_lane_is_heard_at_the_next_tick(lane: Lane) -> None:
    lane.set("pan", 30, 10.0)
    lane.panel.stop(0)
    assert lane.panel.unconfirmed() == [LANE]
    lane.control.tick(10.01)
    assert ("pan", None) in lane.writes
    assert lane.panel.unconfirmed() == []
    lane.panel.arm(1, LAPTOP.holder, 0)
    lane.writes.clear()
    lane.control.tick(10.02)
    assert lane.writes == []
    lane.set("pan", 5, 10.03)


def test_a_stop_that_was_armed_before_we_looked_is_heeded(lane: Lane) -> None:
    lane.set("pan", 30, 10.0)
    lane.panel.stop(0)
    lane.panel.arm(1, LAPTOP.holder, 0)
    lane.set("grip", 0.5, 10.01)
    assert ("pan", None) in lane.writes
    assert lane.writes[-1] == ("grip", 0.5)
    assert lane.panel.unconfirmed() == []


def test_nobody_arms_what_has_not_stopped() -> None:
    devices = DEVICES | {"leg": {"type": "Servo", "pin": 13, "lane": "legs"}}
    panel = SharedState(read({"devices": devices}))
    lane = Lane(panel)
    lane.control.stop(10.0)
    with pytest.raises(NotAllowed, match="lane legs has not stopped yet"):
        lane.control.arm(LAPTOP, 10.1)
    panel.confirm("legs", panel.number)
    lane.control.arm(LAPTOP, 10.2)
    lane.set("pan", 0, 10.3)


@pytest.mark.parametrize("type", ["PWMLED", "RGBLED", "Servo", "LED"])
def test_what_holds_and_was_told_nothing_is_off(type: str) -> None:
    pins: dict[str, Any] = {"RGBLED": {"red": 4, "green": 5, "blue": 6}}
    entry = {"type": type, "safe": "hold", **pins.get(type, {"pin": 4})}
    device = read({"devices": {"x": entry}}).devices["x"]
    assert safe_value(device, None) == {"RGBLED": (0, 0, 0), "Servo": None}.get(type, 0)


def test_a_pulse_that_is_cut_short_does_not_stay(lane: Lane) -> None:
    lamp = read({"devices": {"lamp": {"type": "LED", "pin": 4, "safe": "hold"}}})
    control = Control(LANE, lamp.devices.values(), SharedState(lamp), lane.tell)
    control.begin({0: False})
    output = control.find("lamp")
    control.pulse(output, True, False, 5.0, LAPTOP, 10.0)
    assert output.value is True
    control.stop(10.1)
    assert output.value is False


def test_a_move_takes_over_from_a_sweep_without_a_position(lane: Lane) -> None:
    pan = lane.control.find("pan")
    lane.control.sweep(pan, -10, 10, 1.0, None, LAPTOP, 10.0)
    lane.control.move(pan, 5.0, 1.0, "sine", LAPTOP, 10.0)
    assert pan.motion is None


@pytest.mark.parametrize("value", [10**400, 1e300, math.inf, math.nan, -1, "1", None, True])
def test_what_is_no_time(lane: Lane, value: Any) -> None:
    with pytest.raises(BadArguments, match="a number of seconds"):
        seconds(value, 0.0)


def test_a_move_runs_at_50_hz_and_ends_at_its_target(lane: Lane) -> None:
    pan = lane.control.find("pan")
    lane.set("pan", -30, 10.0)
    assert lane.control.move(pan, 30.0, 0.4, "smooth", LAPTOP, 10.0) == 0.4
    lane.run(10.0, 10.45)
    ways = [value for name, value in lane.writes if isinstance(value, float)]
    assert ways[-1] == 30.0
    assert ways == sorted(ways)
    assert 20 <= len(ways) <= 23


def test_the_next_command_takes_over_from_a_move(lane: Lane) -> None:
    pan = lane.control.find("pan")
    lane.set("pan", 0, 10.0)
    lane.control.move(pan, 80.0, 2.0, "linear", LAPTOP, 10.0)
    lane.run(10.0, 10.2)
    lane.set("pan", -5, 10.21)
    lane.writes.clear()
    lane.run(10.21, 10.6)
    assert lane.writes == []
    assert pan.value == -5


def test_a_move_ends_with_its_lease(lane: Lane) -> None:
    pan = lane.control.find("pan")
    lane.set("pan", 0, 10.0)
    lane.control.move(pan, 80.0, 2.0, "linear", LAPTOP, 10.0)
    lane.run(10.0, 11.0)
    assert lane.writes[-1] == ("pan", None)
    assert pan.value is None


def test_a_halt_leaves_it_where_it_is(lane: Lane) -> None:
    pan = lane.control.find("pan")
    lane.set("pan", 0, 10.0)
    lane.control.move(pan, 80.0, 1.0, "linear", LAPTOP, 10.0)
    lane.run(10.0, 10.1)
    lane.control.halt(pan, LAPTOP, 10.1)
    where = pan.value
    lane.run(10.1, 10.3)
    assert pan.value == where
    assert isinstance(where, float)
    assert 0 < where < 20


def test_nobody_knows_where_a_servo_without_pulses_stands(lane: Lane) -> None:
    assert lane.control.move(lane.control.find("pan"), 80.0, 1.0, "linear", LAPTOP, 10.0) == 0.0
    assert lane.writes == [("pan", 80.0)]


def test_a_limit_of_the_speed_holds_for_commands_too(lane: Lane) -> None:
    lane.set("slow", 0, 10.0)
    now = 10.0
    while now < 10.7:  # a stream of commands at 50 Hz
        lane.set("slow", 60, now)
        lane.run(now, now + FRAME_S)
        now += FRAME_S
    ways = [value for name, value in lane.writes if name == "slow" and isinstance(value, float)]
    assert max(after - before for before, after in itertools.pairwise(ways)) <= 200 * FRAME_S + 1e-6
    assert ways[-1] == 60
    assert lane.control.move(lane.control.find("slow"), 0.0, 0.0, "linear", LAPTOP, now) == pytest.approx(0.6)


def test_what_changes_is_told_at_its_rate(lane: Lane) -> None:
    for number in range(200):
        now = 10.0 + number * 0.005
        lane.set("lamp", number % 2 == 0, now)
        lane.run(now, now + 0.004)
    assert 9 <= len(lane.tells) <= 11
    lane.run(11.0, 12.0)
    assert lane.tells[-1][1] == lane.control.find("lamp").value
    told = len(lane.tells)
    lane.set("lamp", lane.control.find("lamp").value, 12.5)
    lane.run(12.5, 13.0)
    assert len(lane.tells) == told  # nothing is new


def test_the_last_change_is_told_again_until_it_is_taken(lane: Lane) -> None:
    lane.is_full = True
    lane.set("lamp", True, 10.0)
    lane.run(10.0, 10.5)
    lane.is_full = False
    assert len(lane.tells) >= 3
    lane.run(10.5, 11.0)
    told = len(lane.tells)
    lane.run(11.0, 12.0)
    assert len(lane.tells) == told


def test_arming_what_was_not_stopped_changes_nothing(lane: Lane) -> None:
    lane.set("pan", 30, 10.0)
    lane.control.acquire([lane.control.find("grip")], LAPTOP, 10.0, exclusive=True)
    lane.writes.clear()
    lane.control.arm(TABLET, 10.1)
    lane.run(10.1, 10.2)
    assert lane.writes == []
    with pytest.raises(NotAllowed):
        lane.set("grip", 0, 10.2, TABLET)


@pytest.mark.parametrize(
    ("name", "period", "cycles", "text"),
    [("pan", 0.01, None, "from 0.04"), ("slow", 1.0, None, "from 5.65"), ("pan", math.inf, 1, ""), ("pan", -1, 1, "")],
)
def test_a_sweep_that_cannot_be(lane: Lane, name: str, period: float, cycles: int | None, text: str) -> None:
    with pytest.raises(BadArguments, match=f"period.*{text}"):
        lane.control.sweep(lane.control.find(name), -90, 90, period, cycles, LAPTOP, 10.0)


@pytest.mark.parametrize(("duration", "easing", "text"), [(-1.0, "sine", "duration"), (1.0, "bouncy", "linear, sine")])
def test_a_move_that_cannot_be(lane: Lane, duration: float, easing: str, text: str) -> None:
    lane.set("pan", 0, 10.0)
    with pytest.raises(BadArguments, match=text):
        lane.control.move(lane.control.find("pan"), 1.0, duration, easing, LAPTOP, 10.0)


def test_starting_moves_nothing() -> None:
    assert Lane().writes == []


def test_a_sweep_begins_where_the_output_is(lane: Lane) -> None:
    lane.set("slow", 80, 10.0)
    lane.control.sweep(lane.control.find("slow"), -80, -20, 10.0, None, LAPTOP, 10.0)
    lane.control.acquire([lane.control.find("slow")], LAPTOP, 10.0)
    ways = [80.0]
    for frame in range(300):
        now = 10.0 + frame * FRAME_S
        lane.control.acquire([lane.control.find("slow")], LAPTOP, now)
        lane.run(now, now + FRAME_S)
        ways.append(cast(float, lane.control.find("slow").value))
    assert max(abs(after - before) for before, after in itertools.pairwise(ways)) <= 2 * 100 * FRAME_S
    assert min(ways) == pytest.approx(-80, abs=0.01)


def test_a_new_owner_says_what_its_outputs_were_claimed_at(lane: Lane) -> None:
    for name, value in (("pan", 30), ("hold", 0.5), ("grip", 0.25), ("lamp", True)):
        lane.set(name, value, 10.0)
    places = {name: device.place for name, device in lane.layout.devices.items()}
    claimed = SAFE | {"hold": 0.5}
    heir = Control(LANE, lane.layout.devices.values(), lane.panel, lane.tell)
    heir.begin({places[name]: value for name, value in claimed.items()})
    assert {name: output.value for name, output in heir.outputs.items()} == claimed
    assert {name: lane.panel.last(places[name], output.role) for name, output in heir.outputs.items()} == claimed
    assert set(lane.panel.ends) == {NEVER}


def test_a_device_whose_pins_could_not_be_had_fails_alone(lane: Lane) -> None:
    lane.control.find("lamp").failure = "GPIO17: 'GPIO busy'"
    with pytest.raises(TaskFailed, match="lamp was left out: GPIO17") as caught:
        lane.set("lamp", True, 10.0)
    assert caught.value.type == "DeviceFailed"
    assert lane.control.find("lamp").value is False
    lane.set("pan", 30, 10.0)
    assert lane.writes == [("pan", 30)]


@pytest.mark.parametrize(("name", "last", "safe"), [("pan", 3.0, None), ("hold", 0.5, 0.5), ("grip", 0.5, -1.0)])
def test_safe_values(lane: Lane, name: str, last: float, safe: Value) -> None:
    assert safe_value(lane.layout.devices[name], last) == safe


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from([*DEVICES]), st.floats(-1, 1)),
        st.tuples(st.just("move"), st.sampled_from(["pan", "grip", "slow"]), st.floats(-1, 1)),
        st.tuples(st.just("stop"), st.just(""), st.just(0.0)),
        st.tuples(st.just("arm"), st.just(""), st.just(0.0)),
        st.tuples(st.just("wait"), st.just(""), st.floats(0, 0.7)),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_nothing_moves_without_a_lease_or_while_stopped(events: list[tuple[str, str, float]]) -> None:
    with closing(Lane()) as lane:
        play(lane, events)


def play(lane: Lane, events: list[tuple[str, str, float]]) -> None:
    now = 10.0
    commanded: dict[str, float] = {}
    for what, name, number in events:
        before = len(lane.writes)
        was_stopped = lane.panel.is_stopped
        if what == "wait":
            lane.run(now, now + number)
            now += number
        elif what == "stop":
            lane.control.stop(now)
        elif what == "arm":
            with suppress(NotAllowed):  # of a client that goes on commanding
                lane.control.arm(LAPTOP, now)
        else:
            try:
                if what == "move":
                    lane.control.move(lane.control.find(name), number, 0.3, "sine", LAPTOP, now)
                else:
                    lane.set(name, {"lamp": number > 0, "base": [number, -number]}.get(name, number), now)
                commanded[name] = now
            except NotAllowed:
                assert was_stopped
        if was_stopped and what not in ("stop", "arm"):
            assert len(lane.writes) == before
        for output in lane.control.outputs.values():
            lease, name = output.device.lease, output.device.name
            if lease and name in commanded and commanded[name] + lease < now - 1e-6:
                assert output.value == safe_value(output.device, output.value)
                assert output.motion is None
