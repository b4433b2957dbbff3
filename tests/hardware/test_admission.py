"""Admission of commands: each of these moved something once that it should not have, or kept it from stopping."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskengine import Cancelled, NotAllowed, Origin, TaskTimeout
from taskengine_hardware.admission import MAX_CLAIMS, MAX_CONSENTS
from taskengine_hardware.device_config import LANE
from taskengine_hardware.outputs import NS, safe_value
from taskengine_hardware.shared_state import NEVER
from tests.hardware.lane import Lane, call, stop_and_arm

DEVICES: dict[str, Any] = {
    "wheel": {"type": "Motor", "forward": 4, "backward": 5},
    "cart": {"type": "Motor", "forward": 6, "backward": 7, "lease": 3600},
    "pan": {"type": "Servo", "pin": 8},
    "hook": {"type": "Servo", "pin": 9, "safe": "hold"},
    "grip": {"type": "Servo", "pin": 10, "safe": -1.0},
    "lamp": {"type": "LED", "pin": 11},
    "old": {"type": "LED", "pin": 12, "max_age": 2.0, "untimed": True},
    "free": {"type": "Motor", "forward": 13, "backward": 14, "untimed": True, "max_age": 1.0},
}


@pytest.fixture
def lane() -> Lane:
    return Lane(DEVICES)


# Rests ----------------------------------------------------------------------------------------------------------------


def test_what_was_called_before_a_rest_is_cancelled(lane: Lane) -> None:
    lane.set("wheel", 1, 10.0, call("a", 10.0))
    lane.panel.rest(LANE, lane.output("wheel").place, int(10.1 * NS), 3)
    lane.control.tick(10.11)
    assert lane.value("wheel") == 0.0
    for received, position in ((10.05, 9), (10.1, 0), (10.1, 2)):
        lane.position = position
        with pytest.raises(Cancelled, match="wheel was brought to rest"):
            lane.set("wheel", 1, 10.2, call("b", received))
    lane.position = 4
    lane.set("wheel", 0.5, 10.2, call("b", 10.1))
    lane.position = 0
    lane.set("wheel", 0.75, 10.2, call("b", 10.15))
    assert lane.value("wheel") == 0.75
    lane.set("pan", 1, 10.2, call("b", 10.05))


def test_a_rest_is_heeded_before_the_next_command(lane: Lane) -> None:
    origin = call("a", 10.0)
    lane.set("wheel", 1, 10.0, origin)
    lane.panel.rest(LANE, lane.output("wheel").place, int(10.1 * NS), 0)
    with pytest.raises(Cancelled):
        lane.set("wheel", 0.9, 10.2, origin)
    assert lane.writes == [("wheel", 1.0), ("wheel", 0.0)]


def test_a_call_to_rest_gives_its_device_a_number(lane: Lane) -> None:
    wheel = lane.output("wheel")
    lane.set("wheel", 1, 10.0, call("a", 10.0))
    lane.control.bring_to_rest(wheel, call("b", 10.1), 5, 10.2)
    assert lane.panel.rested(wheel.place) == (int(10.1 * NS), 5)
    assert (lane.value("wheel"), lane.panel.ends[wheel.place]) == (0.0, NEVER)
    lane.control.bring_to_rest(wheel, call("b", 10.05), 0, 10.25)
    assert lane.panel.rested(wheel.place) == (int(10.1 * NS), 5)
    with pytest.raises(Cancelled):
        lane.set("wheel", 1, 10.2, call("a", 10.09))
    lane.set("wheel", 1, 10.3, call("a", 10.3))
    lane.control.bring_to_rest(wheel, Origin(), 0, 10.4)  # a thread of a task, now
    assert lane.panel.rested(wheel.place) == (int(10.4 * NS), 0)
    assert lane.value("wheel") == 0.0


# Ages -----------------------------------------------------------------------------------------------------------------


def test_what_is_older_than_the_lease_moves_nothing(lane: Lane) -> None:
    wheel = lane.output("wheel")
    for origin in (call("a", 12.0, 11.4), call("a", 11.4, 0), call("a", 11.4)):
        for command in (
            lambda origin=origin: lane.set("wheel", 1, 12.0, origin),
            lambda origin=origin: lane.control.acquire([wheel], origin, 12.0),
            lambda origin=origin: lane.control.move(lane.output("pan"), 0.0, 1.0, "sine", origin, 12.0),
        ):
            with pytest.raises(TaskTimeout, match=r"0\.6 s after it was called, which may be 0\.5 s") as raised:
                command()
            assert raised.value.seconds == 0.5
    assert lane.panel.state(LANE).refused == 9
    assert (lane.writes, lane.panel.ends[wheel.place]) == ([], NEVER)
    lane.set("wheel", 1, 12.0, call("a", 12.0, 11.6))
    with pytest.raises(TaskTimeout):
        lane.set("free", 1, 13.1, call("a", 12.0))
    lane.set("free", 1, 12.9, call("a", 12.0))
    lane.set("lamp", True, 99.0, call("a", 12.0))  # it has no lease
    with pytest.raises(TaskTimeout):
        lane.set("old", True, 14.1, call("a", 12.0))


def test_a_lease_runs_from_when_its_word_was_said(lane: Lane) -> None:
    """A dead driver's command holds no longer because it was delayed on its way."""
    lane.set("wheel", 1, 10.4, call("a", 10.3, 10.0))
    lane.control.tick(10.49)
    assert lane.value("wheel") == 1.0
    lane.control.tick(10.5)
    assert lane.value("wheel") == 0.0
    lane.set("wheel", 1, 20.0, call("a", 20.0))
    lane.control.renew([lane.output("wheel")], call("a", 20.4, 20.3), 20.4)
    lane.control.tick(20.79)
    assert lane.value("wheel") == 1.0
    lane.control.tick(20.8)
    assert lane.value("wheel") == 0.0


def test_where_commands_may_be_older_than_a_lease_it_runs_from_when_they_do(lane: Lane) -> None:
    lane.set("free", 1, 10.9, call("a", 10.9, 10.0))
    lane.control.tick(11.39)
    assert lane.value("free") == 1.0
    lane.control.tick(11.4)
    assert lane.value("free") == 0.0


def test_a_package_grows_old_while_its_tasks_run(lane: Lane) -> None:
    origin = call("a", 10.0)
    lane.set("wheel", 1, 10.1, origin)
    lane.set("wheel", 1, 10.49, origin)
    with pytest.raises(TaskTimeout):
        lane.set("wheel", 1, 10.51, origin)


def test_what_does_not_say_how_old_it_is_moves_nothing_from_elsewhere(lane: Lane) -> None:
    far = call("a", 10.0, 0, is_local=False)
    with pytest.raises(NotAllowed, match="untimed = true"):
        lane.set("wheel", 1, 10.0, far)
    lane.set("wheel", 1, 10.0, call("a", 10.0, 0))
    lane.set("free", 1, 10.0, far)
    lane.set("lamp", True, 10.0, far)
    lane.set("pan", 1, 10.0, call("a", 10.0, 9.9, is_local=False))


def test_a_link_that_is_too_slow_is_told_so(lane: Lane) -> None:
    with pytest.raises(NotAllowed, match=r"known to 0\.26 s only.*too slow"):
        lane.set("wheel", 1, 10.0, call("a", 10.0, bound=int(0.26 * NS)))
    lane.set("wheel", 1, 10.0, call("a", 10.0, bound=int(0.25 * NS)))
    lane.set("cart", 1, 10.0, call("a", 10.0, bound=NS))


# Leases ---------------------------------------------------------------------------------------------------------------


def test_a_lease_that_is_over_is_acted_on_before_anybody_else_is_heard(lane: Lane) -> None:
    wheel = lane.output("wheel")
    first: list[Callable[[], object]] = [
        lambda: lane.control.acquire([wheel], call("b", 10.6), 10.6),
        lambda: lane.set("pan", 0, 10.6, call("b", 10.6)),
        lambda: lane.control.halt(lane.output("pan"), call("b", 10.6), 10.6),
    ]
    for number, event in enumerate(first):
        lane = Lane(DEVICES)
        wheel = lane.output("wheel")
        lane.set("wheel", 1, 10.0, call("a", 10.0))
        event()
        assert lane.writes[:2] == [("wheel", 1.0), ("wheel", 0.0)], number


def test_a_renewal_after_a_lapse_fails_and_gives_nothing_back(lane: Lane) -> None:
    wheel = lane.output("wheel")
    lane.set("wheel", 1, 10.0, call("a", 10.0))
    lane.control.renew([wheel], call("a", 10.4), 10.4)
    lane.control.renew([wheel], call("a", 10.8), 10.8)
    with pytest.raises(NotAllowed, match=r"lease of wheel has lapsed: call lease\.acquire"):
        lane.control.renew([wheel], call("a", 11.4), 11.4)
    assert lane.writes == [("wheel", 1.0), ("wheel", 0.0)]
    assert lane.panel.ends[wheel.place] == NEVER


def test_anothers_renewals_do_not_keep_a_motion_alive(lane: Lane) -> None:
    wheel = lane.output("wheel")
    lane.set("wheel", 1, 10.0, call("a", 10.0))
    with pytest.raises(NotAllowed, match="lapsed"):
        lane.control.renew([wheel], call("b", 10.1), 10.1)
    lane.control.acquire([wheel], call("b", 10.1), 10.1)
    for tenth in range(2, 10):
        now = 10.0 + tenth / 10
        lane.control.renew([wheel], call("b", now), now)
        lane.run(now, now + 0.099)
    assert lane.writes == [("wheel", 1.0), ("wheel", 0.0)]
    lane.set("wheel", 0.5, 11.0, call("b", 11.0))
    lane.control.renew([wheel], call("b", 11.4), 11.4)
    lane.run(11.4, 11.85)
    assert lane.value("wheel") == 0.5


def test_who_commanded_last_may_renew_for_as_long_as_that_lasts(lane: Lane) -> None:
    wheel = lane.output("wheel")
    lane.set("wheel", 1, 10.0, call("a", 10.0))
    lane.set("wheel", 0.5, 10.2, call("b", 10.2))
    lane.control.renew([wheel], call("a", 10.4), 10.4)  # shared, but not the word that counts
    lane.run(10.4, 10.75)
    assert lane.value("wheel") == 0.0


def test_a_release_lets_others_in_but_is_not_theirs(lane: Lane) -> None:
    wheel = lane.output("wheel")
    lane.control.acquire([wheel], call("a", 10.0), 10.0, exclusive=True)
    lane.control.admission.release([wheel], call("b", 10.0))
    with pytest.raises(NotAllowed, match="another client holds wheel"):
        lane.set("wheel", 1, 10.1, call("b", 10.1))
    lane.control.admission.release([wheel], call("a", 10.1))
    lane.set("wheel", 1, 10.1, call("b", 10.1))


def test_many_claims_and_consents_do_not_grow_for_ever(lane: Lane) -> None:
    cart, wheel = lane.output("cart"), lane.output("wheel")
    for number in range(3 * MAX_CLAIMS):
        lane.control.acquire([cart, wheel], call(f"c{number}", 10.0 + number / 10), 10.0 + number / 10)
    assert len(cart.claims) <= MAX_CLAIMS
    assert len(wheel.claims) <= MAX_CLAIMS
    stop_and_arm(lane, 100.0)
    for number in range(MAX_CONSENTS + 10):
        lane.control.acquire([cart], call(f"c{number}", 101.0), 101.0)
    assert len(lane.control.admission._consents) <= MAX_CONSENTS
    assert len(cart.claims) <= MAX_CLAIMS


# Holds ----------------------------------------------------------------------------------------------------------------


def test_a_hold_ends_where_its_holder_says_nothing_for_long(lane: Lane) -> None:
    cart = lane.output("cart")
    lane.control.acquire([cart], call("a", 10.0), 10.0, exclusive=True)
    lane.set("cart", 1, 12.0, call("a", 12.0))
    lane.control.renew([cart], call("a", 15.0), 15.0)
    with pytest.raises(NotAllowed, match="another client holds cart"):
        lane.set("cart", 0.5, 19.9, call("b", 19.9))
    lane.set("cart", 0.5, 20.1, call("b", 20.1))


def test_a_hold_that_is_over_comes_back_by_no_command(lane: Lane) -> None:
    cart = lane.output("cart")
    lane.control.acquire([cart], call("a", 10.0), 10.0, exclusive=True)
    lane.set("cart", 1, 15.1, call("a", 15.1))
    lane.control.renew([cart], call("a", 15.1), 15.1)
    lane.set("cart", 0.5, 15.2, call("b", 15.2))


def test_how_long_a_hold_lasts_is_set() -> None:
    lane = Lane(DEVICES, exclusive=1.0)
    origin = call("a", 10.0)
    lane.control.acquire([lane.output("cart")], origin, 10.0, exclusive=True)
    for now in (10.5, 11.0):
        lane.set("cart", 1, now, origin)  # also where it needs no other look
    with pytest.raises(NotAllowed):
        lane.set("cart", 0.5, 11.9, call("b", 11.9))
    lane.set("cart", 0.5, 12.1, call("b", 12.1))


def test_the_holder_is_a_client_object_over_its_connections(lane: Lane) -> None:
    cart = lane.output("cart")
    lane.control.acquire([cart], call("a", 10.0, holder=b"a\0one"), 10.0, exclusive=True)
    stranger = Origin("a", b"a", b"a\0two", 10 * NS, 10 * NS)
    with pytest.raises(NotAllowed, match="another client holds cart"):
        lane.set("cart", 1, 10.1, stranger)
    lane.set("cart", 1, 10.1, Origin("a", b"other", b"a\0one", 10 * NS, 10 * NS))


def test_another_program_of_the_same_key_takes_over(lane: Lane) -> None:
    cart = lane.output("cart")
    one, two, other = (call(name, 10.0, holder=holder) for name, holder in (("a", b"1"), ("a", b"2"), ("b", b"3")))
    lane.control.acquire([cart], one, 10.0, exclusive=True)
    for origin, take_over in ((two, False), (other, False), (other, True)):
        with pytest.raises(NotAllowed, match="another client holds cart"):
            lane.control.acquire([cart], origin, 10.1, exclusive=True, take_over=take_over)
    lane.control.acquire([cart], two, 10.1, exclusive=True, take_over=True)
    lane.set("cart", 1, 10.1, two)
    with pytest.raises(NotAllowed, match="another client holds cart"):
        lane.set("cart", 0.5, 10.1, one)


def test_a_hold_takes_effect_on_who_was_admitted_before(lane: Lane) -> None:
    origin = call("a", 10.0)
    lane.set("cart", 1, 10.0, origin)
    lane.control.acquire([lane.output("cart")], call("b", 10.0), 10.0, exclusive=True)
    with pytest.raises(NotAllowed):
        lane.set("cart", 0.5, 10.1, origin)


@pytest.mark.parametrize(
    ("name", "moving", "safe", "passes"),
    [
        ("wheel", 1.0, 0.0, True),
        ("pan", 0.5, None, True),
        ("grip", 0.5, -1.0, True),
        ("grip", 0.5, None, False),
        ("hook", 0.5, None, False),
        ("hook", 0.5, 0.5, False),
        ("wheel", 1.0, 0.5, False),
    ],
)
def test_anybody_may_bring_a_device_to_its_own_safe_state(
    lane: Lane, name: str, moving: float, safe: Any, passes: bool
) -> None:
    output = lane.output(name)
    lane.control.acquire([output], call("a", 10.0), 10.0, exclusive=True)
    lane.set(name, moving, 10.0, call("a", 10.0))
    far = call("b", 10.1, 0, is_local=False)
    if not passes:
        with pytest.raises(NotAllowed):
            lane.set(name, safe, 10.1, far)
        assert lane.value(name) == moving
        return
    lane.control.check(output, safe, far, 10.1)
    lane.set(name, safe, 10.1, far)
    assert (lane.value(name), lane.panel.ends[output.place]) == (safe, NEVER)
    with pytest.raises(NotAllowed, match="another client holds"):
        lane.set(name, moving, 10.2, call("b", 10.2))  # the hold is its holder's still
    with pytest.raises(NotAllowed, match="lapsed"):
        lane.control.renew([output], call("a", 10.2), 10.2)
    lane.set(name, moving, 10.2, call("a", 10.2))


def test_a_stranger_ends_a_motion_and_begins_no_lease(lane: Lane) -> None:
    lane.set("wheel", 1, 10.0, call("a", 10.0))
    lane.set("wheel", 0, 10.1, call("b", 10.1))
    assert lane.panel.ends[lane.output("wheel").place] == NEVER
    lane.set("wheel", 1, 10.2, call("a", 10.2))
    lane.set("wheel", 0, 10.3, call("a", 10.3))  # its own zero is a command
    assert lane.panel.ends[lane.output("wheel").place] != NEVER


def test_off_is_taken_also_while_it_is_stopped_or_before_a_consent(lane: Lane) -> None:
    lane.control.stop(10.0)
    lane.writes.clear()
    lane.set("wheel", 0, 10.1, call("a", 10.1))
    lane.control.bring_to_rest(lane.output("pan"), call("a", 10.1), 0, 10.1)
    assert lane.writes == []
    lane.control.arm(call("boss", 10.2), 10.2)
    lane.set("wheel", 1, 10.3, call("boss", 10.3))
    lane.set("wheel", 0, 10.4, call("a", 10.4))
    assert lane.value("wheel") == 0.0


def test_a_halt_passes_where_holding_is_safe(lane: Lane) -> None:
    for name in ("hook", "pan"):
        output = lane.output(name)
        lane.control.acquire([output], call("a", 10.0), 10.0, exclusive=True)
        lane.set(name, 0.0, 10.0, call("a", 10.0))
        lane.control.move(output, 1.0, 0.4, "linear", call("a", 10.0), 10.0)
    lane.run(10.0, 10.2)
    with pytest.raises(NotAllowed):
        lane.control.halt(lane.output("pan"), call("b", 10.2), 10.2)
    lane.control.halt(lane.output("hook"), call("b", 10.2), 10.2)
    assert lane.output("hook").motion is None
    assert lane.value("hook") == pytest.approx(0.5, abs=0.06)


# All together ---------------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(NAMES), st.floats(0, 1.5), st.sampled_from([0.0, 0.5, 1.0])),
        st.tuples(st.just("acquire"), st.sampled_from(NAMES), st.floats(0, 1.5), st.booleans()),
        st.tuples(st.just("renew"), st.sampled_from(NAMES), st.floats(0, 1.5), st.just(0)),
        st.tuples(st.just("rest"), st.sampled_from(NAMES), st.floats(0, 1.5), st.just(0)),
        st.tuples(st.just("stop"), st.sampled_from(NAMES), st.just(0.0), st.just(0)),
        st.tuples(st.just("arm"), st.sampled_from(NAMES), st.floats(0, 1.5), st.integers(-1, 1)),
        st.tuples(st.just("wait"), st.just(""), st.floats(0, 0.7), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_nothing_moves_without_a_live_recent_and_consenting_word(steps: list[tuple[str, str, float, Any]]) -> None:
    """Commands come up to 1.5 s after they were called, in any order; an oracle knows when each was called."""
    with contextlib.closing(Lane(DEVICES)) as lane:
        play(lane, steps)


def play(lane: Lane, steps: list[tuple[str, str, float, Any]]) -> None:
    now = 100.0
    wheel = lane.output("wheel")
    stopped_at = armed_at = word_at = rested_at = 0.0
    author, consenting = "", set()
    for what, name, late, argument in steps:
        now += 0.001
        called = now - late
        origin = call(name, now, called, since=int(50 * NS)) if name else Origin()
        was_moving = wheel.value != 0.0
        with contextlib.suppress(NotAllowed, Cancelled, TaskTimeout):
            if what == "set":
                lane.set("wheel", argument, now, origin)
                if argument:
                    assert called > max(stopped_at, now - 0.5 - 1e-6)
                    assert not lane.panel.is_stopped
                    assert not armed_at or name in consenting
                    author, word_at = name, now
            elif what == "acquire":
                lane.control.acquire([wheel], origin, now, exclusive=argument)
                consenting.add(name)
                if name == author:
                    word_at = now
            elif what == "renew":
                lane.control.renew([wheel], origin, now)
                if name == author:
                    word_at = now
            elif what == "rest":
                lane.control.bring_to_rest(wheel, origin, 0, now)
                rested_at = now
                assert wheel.value == 0.0
            elif what == "stop":
                lane.control.stop(now)
                stopped_at, consenting = now, set()
                assert wheel.value == 0.0
            elif what == "arm":
                lane.control.arm(origin, now, None if argument < 0 else lane.panel.number - argument)
                assert argument == 0 or called > stopped_at or not stopped_at
                armed_at = armed_at or (now if stopped_at else 0.0)
                consenting.add(name)
            else:
                lane.run(now, now + late)
                now += late
        if what != "set":
            assert was_moving or wheel.value == 0.0
        if wheel.value != 0.0:
            assert now <= word_at + 0.5 + 1e-6 or what != "wait"
            assert word_at >= max(stopped_at, rested_at)
        else:
            assert wheel.value == safe_value(wheel.device, wheel.value)
