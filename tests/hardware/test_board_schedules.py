"""Random schedules of commands, stops, arms, lease ends and disturbances of a bus, judged each millisecond."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskengine import TaskFailed
from taskengine_hardware.board_machine import CUT_S, Step
from taskengine_hardware.motion import Ramp
from taskengine_hardware.shared_state import NEVER
from tests.hardware.board_site import CHANNELS, LAPTOP, LEASE_S, MOTIONS, OFF, STREAMS, Site, armed, shares

DEEDS = [
    *("pan", "pan", "grip", "grip", "wheel", "wheel", "led", "cut", "hang", "deaf", "reset", "stop"),
    *("lift", "lift", "tilt", "belt", "belt", "acquire", "flag", "flag", "lamp", "glow", *MOTIONS),
    *("arm", "arm", "arm", "late", "late", "late", *STREAMS),
]
Schedule = list[tuple[int, str, int]]
LATE_NEWS: tuple[Schedule, ...] = (
    [
        *((0, "arm", 85), (3, "wheel", 293), (3, "arm", 202), (119, "reset", 373), (2, "late", 228), (0, "pan", 245)),
        *((0, "pan", 208), (2, "arm", 6), (3, "arm", 207), (2, "reset", 342), (3, "flicker", 21), (65, "stop", 74)),
        *((2, "wheel", 51), (3, "arm", 299), (0, "arm", 270), (49, "arm", 390), (0, "stop", 122), (1, "late", 138)),
        *((2, "grip", 340), (1, "deaf", 152), (1, "cut", 49), (3, "arm", 242)),
    ],
    [
        *((1, "reset", 60), (0, "stop", 42), (2, "grip", 312), (0, "pan", 344), (1, "late", 384), (103, "wheel", 147)),
        *((0, "late", 241), (3, "pan", 68), (3, "pan", 260), (2, "arm", 317), (2, "late", 386)),
    ],
)
"""News of the board that comes while the owner's thread is late."""
SCHEDULES = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from(DEEDS), st.integers(1, 400)), min_size=1, max_size=30
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.booleans(), SCHEDULES)
@example(True, LATE_NEWS[0])
@example(True, LATE_NEWS[1])
def test_whatever_happens_the_board_is_safe_as_soon_as_it_can_be(is_armed: bool, schedule: Schedule) -> None:
    site = armed() if is_armed else Site()
    try:
        for pause, deed, amount in schedule:
            site.run(pause)
            site.do(deed, amount)
        site.finish()
    finally:
        site.panel.close()


@pytest.mark.parametrize("is_granted", [True, False])
def test_a_command_between_the_loss_of_a_bus_and_its_notice_is_refused_and_never_written(is_granted: bool) -> None:
    """Also of a device that holds, whose client does without checks, and whose lease has ended when the bus is back."""
    site = armed(("grip", 250), ("wheel", 400))
    grip, before = site.control.find("grip"), site.board.chip[1]
    assert grip.granted is LAPTOP
    site.do("cut", 150)
    # the owner's thread is busy; the bus's finds out
    site.late_until = site.now + 0.02
    site.call("wheel", 300)
    site.run(10)
    assert site.board.machine.fault
    assert not grip.is_lost
    if not is_granted:
        grip.granted = None
    with pytest.raises(TaskFailed, match="no chip answers"):
        site.control.command(grip, 1.0, LAPTOP, site.now)
    assert (grip.is_lost, site.panel.ends[grip.place], grip.value) == (True, NEVER, 0.5)
    assert site.panel.last(grip.place, grip.role) == 0.5, "the next owner would move it"
    site.run(600)
    assert not grip.is_lost
    assert (site.board.chip[1], grip.value) == (before, 0.5)
    # nothing moves until a new command, with a lease of its own
    assert site.board.chip[2] == 0.0
    site.do("grip", 400)
    site.run(20)
    assert site.board.chip[1] == pytest.approx(shares("grip", 0.8)[0])
    site.finish()


def lost_unseen(site: Site) -> None:
    """The bus's thread has found that the bus is cut; the owner's is busy, and has not heard of it."""
    site.do("cut", 120)
    site.late_until = site.now + 0.02
    site.board.machine.lose("no chip answers", site.now)


def judge_rest(site: Site, name: str) -> None:
    """Nothing that was refused moves the device once its board is back."""
    output = site.control.find(name)
    assert (output.is_lost, site.panel.ends[output.place], output.motion) == (True, NEVER, None)
    for _ in range(1000):
        site.run(1)
        assert output.is_lost or not any(site.board.chip[channel] for channel in CHANNELS[name])
    assert not output.is_lost
    site.finish()


@pytest.mark.parametrize("name", ["lift", "belt"])
def test_a_ramp_that_a_lost_board_refuses_does_not_begin_once_it_is_back(name: str) -> None:
    site = armed((name, 50))
    site.run(60)
    lost_unseen(site)
    output = site.control.find(name)
    with pytest.raises(TaskFailed, match="no chip answers"):
        site.control.command(output, 1.0, LAPTOP, site.now)
    judge_rest(site, name)


@pytest.mark.parametrize("is_ready", [False, True])
def test_a_motion_of_a_lost_output_ends_whoever_began_it(is_ready: bool) -> None:
    """The second barrier: while its board is lost, and when it comes back."""
    site = armed(("lift", 50))
    lost_unseen(site)
    site.late_until = 0.0
    site.run(1)
    lift, control = site.control.find("lift"), site.control
    assert lift.is_lost
    if is_ready:
        # the owner sees nothing before the board is safe again
        site.late_until = site.now + 0.3
        site.run(290)
        assert site.board.machine.is_ready
    lift.motion = Ramp((0.0,), (1.0,), lift.clock, 1.0)
    control._moving[lift] = None
    control.heed(site.now)
    assert lift.is_lost is not is_ready
    assert lift not in control._moving
    site.finish()


def test_a_late_renewal_on_a_lost_board_begins_no_ramp() -> None:
    site = armed(("belt", 400))
    site.run(int(1000 * LEASE_S) - 60)
    belt = site.control.find("belt")
    assert belt.motion is not None, "it ramps down, since the next command is late"
    lost_unseen(site)
    site.call("renew", 0)
    judge_rest(site, "belt")


@pytest.mark.parametrize("deed", ["pulse", "fade", "move"])
def test_a_motion_that_a_lost_board_refuses_does_not_begin_once_it_is_back(deed: str) -> None:
    name = MOTIONS[deed]
    site = armed((name, 50))
    lost_unseen(site)
    with pytest.raises(TaskFailed, match="no chip answers"):
        site.begin(deed, site.control.find(name), 400)
    judge_rest(site, name)


def test_a_stop_while_the_bus_is_lost_leaves_what_holds_where_it_is() -> None:
    site = armed(("grip", 250))
    before = site.board.chip[1]
    site.do("cut", 300)
    site.late_until = site.now + 0.02
    site.call("grip", 300)
    site.run(10)
    site.call("grip", 400)
    site.do("stop", 0)
    site.run(600)
    assert site.panel.unconfirmed() == []
    # its last command may have arrived or not, so it is off, or where it was
    assert site.board.chip[1] in (0.0, before)
    site.finish()


@pytest.mark.parametrize("stream", STREAMS)
def test_commands_that_come_faster_than_a_bus_is_read_back_do_not_switch_its_board_off(stream: str) -> None:
    site = armed(("pan", 300))
    site.do(stream, 3000)
    # the lease of pan ends meanwhile, which asks for a cut
    for _ in range(2000):
        site.run(1)
        assert site.board.is_enabled
    site.finish()


def test_a_safe_state_that_is_late_is_cut_by_the_line() -> None:
    site = Site()
    site.run(200)
    site.do("arm", 0)
    site.do("wheel", 400)
    site.run(20)
    assert (site.board.chip[2], site.board.is_enabled) == (0.8, True)
    site.do("hang", 5000)
    site.run(int(1000 * (LEASE_S + CUT_S)))
    assert (site.board.chip[2], site.board.is_enabled) == (0.8, False)
    site.finish()


@pytest.mark.parametrize("step", [Step.WRITE, Step.VERIFY, Step.CHECK])
@pytest.mark.parametrize("deed", ["stop", "lease"])
def test_a_stop_and_a_lease_overtake_what_the_bus_is_doing(step: Step, deed: str) -> None:
    """The thread of the bus may be anywhere in its steps, with a command that is written, and with one after it."""
    for delay in range(5):
        site = armed(("pan", 300))
        # what is read back is the end of pan's lease
        for tick in range(1500):
            if tick % (100 if step is Step.CHECK else 7) == 0:
                site.call("wheel", 100 + tick % 2 * 100)
            site.run(1)
            action = site.board._action
            if action is not None and action.step is step and site.board.chip[2]:
                break
        else:
            raise AssertionError(f"the bus is never at {step}")
        site.run(delay)
        if deed == "stop":
            site.call("wheel", 400)
            site.do("stop", 0)
            site.run(50)
            assert site.panel.unconfirmed() == []
        else:
            site.call("wheel", 400)
            site.run(int(1000 * LEASE_S) + 51)
        assert not any(site.board.chip[channel] for channel in OFF)
        site.finish()


@pytest.mark.long
@pytest.mark.parametrize("disturbance", ["cut", "hang", "deaf", "reset"])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_lease_that_ends_in_the_instant_of_a_disturbance(disturbance: str, is_late: bool) -> None:
    """Before, in, and after each millisecond of it, with an owner that is late or not; `run` judges."""
    for offset in range(-12, 13):
        for length in (1, 30, 300):
            site = armed()
            site.call("wheel", 400)
            site.call("grip", 250)
            site.run(int(1000 * LEASE_S) + offset)
            site.do(disturbance, length)
            if is_late:
                site.late_until = site.now + 0.02
            site.run(400)
            site.finish()


@pytest.mark.long
@pytest.mark.parametrize("disturbance", ["cut", "hang", "deaf", "reset"])
def test_a_stop_in_the_instant_of_a_disturbance(disturbance: str) -> None:
    for offset in range(-8, 9):
        for length in (1, 30, 300):
            site = armed(("grip", 250))
            site.call("wheel", 400)
            site.run(20 + min(offset, 0))
            site.do(disturbance, length)
            site.run(abs(offset))
            site.do("stop", 0)
            site.run(400)
            site.finish()
