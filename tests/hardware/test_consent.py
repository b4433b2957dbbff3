"""Consent to motion: what a stop ends, an arm does not give back, and a client gives again."""

from __future__ import annotations

from typing import Any

import pytest

from taskengine import NotAllowed, Origin
from taskengine_hardware.outputs import NS
from tests.hardware.lane import Lane, call, stop_and_arm

DEVICES: dict[str, Any] = {
    "wheel": {"type": "Motor", "forward": 4, "backward": 5},
    "pan": {"type": "Servo", "pin": 8},
    "lamp": {"type": "LED", "pin": 11},
}


@pytest.fixture
def lane() -> Lane:
    return Lane(DEVICES)


def test_a_command_from_before_a_stop_does_not_outlast_it(lane: Lane) -> None:
    stop_and_arm(lane, 10.0, "a")
    for origin in (call("a", 9.9), call("a", 9.9, 0), call("a", 10.2, 9.99), call("a", 10.0)):
        with pytest.raises(NotAllowed, match="stop 1"):
            lane.set("wheel", 1, 10.2, origin)
    assert lane.value("wheel") == 0.0
    lane.set("wheel", 1, 10.2, call("a", 10.2, 10.15))
    assert lane.value("wheel") == 1.0


def test_while_it_is_stopped_it_says_by_whom_and_why(lane: Lane) -> None:
    lane.control.stop(10.0, by="teacher", why="a finger")
    with pytest.raises(NotAllowed, match=r"stopped by teacher: a finger \(stop 1\); system.arm lets it"):
        lane.set("wheel", 1, 10.2, call("a", 10.2))


def test_an_older_arm_does_not_undo_a_newer_stop(lane: Lane) -> None:
    lane.control.stop(10.0)
    lane.control.stop(11.0)
    for origin, number in (
        (call("a", 10.5), None),
        (call("a", 11.5, 10.9), None),
        (call("a", 11.5), 1),
        (call("a", 11.5), 3),
        (call("a", 11.5, 0, is_local=False), None),
    ):
        with pytest.raises(NotAllowed, match="stop"):
            lane.control.arm(origin, 11.6, number)
        assert lane.panel.is_stopped
    lane.control.arm(call("a", 11.5, 10.9), 11.6, 2)
    assert not lane.panel.is_stopped


@pytest.mark.parametrize("origin", [call("a", 10.5), call("a", 10.5, 0), Origin()])
def test_an_arm_without_a_number_is_younger_than_the_stop(lane: Lane, origin: Origin) -> None:
    lane.control.stop(10.0)
    lane.control.arm(origin, 10.5)
    assert not lane.panel.is_stopped


def test_after_an_arm_a_command_alone_does_not_move_things(lane: Lane) -> None:
    stop_and_arm(lane, 10.0)
    lane.set("wheel", 0.5, 10.2, call("boss", 10.2))
    lane.set("pan", 0.5, 10.2, call("new", 10.2, since=int(10.15 * NS)))
    lane.control.tick(11.0)
    for origin in (call("a", 11.0), call("a", 11.0, since=int(9.0 * NS)), call("a", 11.0, 0), Origin()):
        for name in ("wheel", "lamp"):
            with pytest.raises(NotAllowed, match=r"call lease\.acquire first"):
                lane.set(name, True if name == "lamp" else 1, 11.0, origin)
    assert lane.value("wheel") == 0.0
    lane.control.acquire([lane.output("pan")], call("a", 11.1), 11.1)
    lane.set("wheel", 1, 11.2, call("a", 11.2))
    lane.set("lamp", True, 11.2, call("a", 11.2))


def test_a_reconnect_is_no_consent(lane: Lane) -> None:
    stop_and_arm(lane, 10.0)
    again = Origin("a", b"another connection", b"a", int(10.2 * NS), int(10.2 * NS), since=int(5.0 * NS))
    with pytest.raises(NotAllowed, match=r"lease\.acquire"):
        lane.set("wheel", 1, 10.2, again)


def test_consent_ends_with_the_next_stop(lane: Lane) -> None:
    stop_and_arm(lane, 10.0)
    lane.control.acquire([lane.output("pan")], call("a", 10.2), 10.2)
    lane.set("wheel", 1, 10.2, call("a", 10.2))
    stop_and_arm(lane, 11.0)
    with pytest.raises(NotAllowed, match=r"lease\.acquire"):
        lane.set("wheel", 1, 11.2, call("a", 11.2))


def test_consent_is_given_after_the_arm(lane: Lane) -> None:
    """A driver that asks again and again while the machine is stopped has not seen that it was armed."""
    lane.control.stop(10.0)
    early = call("a", 10.05)
    lane.control.arm(call("boss", 10.1), 10.1)
    with pytest.raises(NotAllowed, match="call it again"):
        lane.control.acquire([lane.output("wheel")], early, 10.2)
    for sent in (10.01, 10.08):  # the later one may have been called after it
        with pytest.raises(NotAllowed, match="call it again"):
            lane.control.acquire([lane.output("wheel")], call("a", 10.2, sent, bound=int(0.04 * NS)), 10.2)
    lane.control.acquire([lane.output("wheel")], call("a", 10.2, 10.11, bound=int(0.04 * NS)), 10.2)


def test_a_client_that_armed_need_not_know_the_clock_well_to_go_on(lane: Lane) -> None:
    lane.control.stop(10.0)
    lane.control.arm(call("boss", 10.1), 10.1)
    lane.control.acquire([lane.output("wheel")], call("boss", 10.11, 10.14, bound=int(0.04 * NS)), 10.11)
    with pytest.raises(NotAllowed, match="may have been sent before stop"):
        lane.control.acquire([lane.output("wheel")], call("boss", 10.2, 9.9), 10.2)


def test_who_may_have_appeared_before_the_arm_has_not_consented(lane: Lane) -> None:
    stop_and_arm(lane, 10.0)
    with pytest.raises(NotAllowed, match=r"lease\.acquire"):
        lane.set("wheel", 1, 10.2, call("a", 10.2, since=int(10.08 * NS), bound=int(0.04 * NS)))
    lane.set("wheel", 1, 10.2, call("a", 10.2, since=int(10.11 * NS), bound=int(0.04 * NS)))


def test_who_arms_what_is_armed_consents(lane: Lane) -> None:
    stop_and_arm(lane, 10.0)
    with pytest.raises(NotAllowed):
        lane.set("lamp", True, 10.2, call("a", 10.2))
    lane.control.arm(call("a", 10.3), 10.3, 1)
    lane.set("lamp", True, 10.4, call("a", 10.4))
    with pytest.raises(NotAllowed):
        lane.set("lamp", True, 10.4, call("b", 10.4))


def test_an_arm_in_another_lane_is_consent_too(lane: Lane) -> None:
    lane.control.stop(10.0)
    lane.panel.arm(1, b"a", int(10.1 * NS))
    lane.set("wheel", 1, 10.2, call("a", 10.2))


def test_consent_outlives_the_owner_and_no_stop(lane: Lane) -> None:
    """A reload, or the death of an owner whose devices resume, is no reason to ask a driver again."""
    stop_and_arm(lane, 10.0)
    lane.control.acquire([lane.output("wheel")], call("a", 10.2), 10.2)
    later = Lane(DEVICES, lane.panel)
    later.set("wheel", 1, 10.3, call("a", 10.3))
    with pytest.raises(NotAllowed, match=r"lease\.acquire"):
        later.set("lamp", True, 10.3, call("b", 10.3))
    stop_and_arm(later, 11.0)
    with pytest.raises(NotAllowed, match=r"lease\.acquire"):
        later.set("wheel", 1, 11.2, call("a", 11.2))
    with pytest.raises(NotAllowed, match=r"lease\.acquire"):
        Lane(DEVICES, lane.panel).set("wheel", 1, 11.2, call("a", 11.2))
