"""Rules in themselves: which readings and causes restrict which outputs, and what stops the machine."""

from __future__ import annotations

import math
from typing import Any

import pytest

from taskengine_hardware.conditions import FAULT, LINK, POWER, Condition, Term, parse
from taskengine_hardware.plausibility import Judge, Measurement, Plausibility
from taskengine_hardware.rules import LATCH_S, Restriction, Rule, RuleAction, Rules

NEAR = Rule("near", parse("distance < 0.2"), RuleAction.STOP, ("base",))
SLOW = Rule("slow", parse("distance < 0.5"), RuleAction.LIMIT, ("base",), limit=0.3)
ESTOP = Rule("estop", parse("not estop"), RuleAction.LATCH, text="the stop input is open")
AGE_S = 0.3


def machine(*rules: Rule, **bounds: Plausibility) -> Rules:
    inputs = {
        source: bounds.get(source, Plausibility(max_age=AGE_S))
        for rule in rules
        for source in rule.when.sources
        if source not in (FAULT, LINK, POWER)
    }
    return Rules(rules, inputs, ("base", "arm"), now=0.0)


def read(rules: Rules, now: float, **values: Any) -> None:
    for name, value in values.items():
        rules.sense(name, Measurement(now, value), now)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("distance < 0.2", Condition((Term("distance", "<", 0.2),))),
        ("  a>=-1e3 ", Condition((Term("a", ">=", -1000.0),))),
        ("not door", Condition((Term("door", "off"),))),
        ("a < 1 or not b or c", Condition((Term("a", "<", 1.0), Term("b", "off"), Term("c", "on")), is_any=True)),
        ("undervoltage and a > .5", Condition((Term("undervoltage", "on"), Term("a", ">", 0.5)))),
        ("link lost", Condition((Term("link lost", "on"),))),
    ],
)
def test_conditions_are_read_and_written(text: str, condition: Condition) -> None:
    assert parse(text) == condition
    assert parse(str(condition)) == condition


@pytest.mark.parametrize("text", ["", "a <", "a = 3", "a < b", "a < 1 and b or c", "not a < 3", "a and", "a < nan"])
def test_other_text_is_no_condition(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|two rules"):
        parse(text)


def test_a_rule_holds_while_its_condition_does() -> None:
    rules = machine(NEAR, SLOW)
    read(rules, 0.1, distance=0.9)
    assert rules.restriction("base") is None
    read(rules, 0.2, distance=0.4)
    found = rules.restriction("base")
    assert found == Restriction(limit=0.3, reasons=("slow: distance < 0.5",))
    read(rules, 0.3, distance=0.1)
    found = rules.restriction("base")
    assert found is not None
    assert found.is_stopped
    assert found.reasons == ("near: distance < 0.2", "slow: distance < 0.5")
    assert rules.restriction("arm") is None


def test_what_was_not_measured_yet_counts_as_the_worst() -> None:
    rules = machine(NEAR)
    found = rules.restriction("base")
    assert found is not None
    assert found.reasons == ("near: distance has not been measured yet",)


@pytest.mark.parametrize("reading", [Measurement(0.2, None, "no echo"), Measurement(0.2, None)])
def test_what_has_no_value_counts_as_the_worst(reading: Measurement) -> None:
    rules = machine(NEAR)
    read(rules, 0.1, distance=0.9)
    assert rules.sense("distance", reading, 0.2)
    found = rules.restriction("base")
    assert found is not None
    assert found.is_stopped
    assert "distance has no value" in found.reasons[0]


def test_a_reading_grows_too_old_by_itself() -> None:
    rules = machine(NEAR)
    read(rules, 0.1, distance=0.9)
    while rules.due < 0.4:
        assert not rules.tick(rules.due) or rules.due
    assert rules.restriction("base") is None
    assert rules.due == pytest.approx(0.4)
    assert rules.tick(rules.due)
    found = rules.restriction("base")
    assert found is not None
    assert found.reasons == ("near: distance was measured longer than 0.3 s ago",)
    rules.tick(rules.due)
    assert rules.due == math.inf


@pytest.mark.parametrize(
    ("bounds", "readings", "said"),
    [
        (Plausibility(least=0.1, most=4), [(0.1, 1.0), (0.2, 0.05)], "outside of its range, 0.1 to 4"),
        (Plausibility(max_rate=5), [(0.1, 1.0), (0.2, 2.0)], "changes faster than 5 a second"),
        (Plausibility(stuck_after=1), [(0.1, 1.0), (0.6, 1.0), (1.1, 1.0)], "has said the same for 1 s"),
    ],
)
def test_what_is_not_plausible_is_not_trusted(
    bounds: Plausibility, readings: list[tuple[float, float]], said: str
) -> None:
    judge = Judge("distance", bounds, 0.0)
    for at, value in readings[:-1]:
        judge.take(Measurement(at, value))
        assert judge.judged(at) == (value, "")
    at, value = readings[-1]
    judge.take(Measurement(at, value))
    assert judge.judged(at)[0] is None
    assert said in judge.judged(at)[1]
    judge.take(Measurement(at + 0.5, 1.5))
    assert judge.judged(at + 0.5) == (1.5, "")


def test_a_reading_older_than_the_latest_says_nothing() -> None:
    judge = Judge("distance", Plausibility(), 0.0)
    judge.take(Measurement(0.2, 1.0))
    judge.take(Measurement(0.1, 5.0))
    assert judge.judged(0.2) == (1.0, "")


def test_a_stop_input_waits_for_its_first_reading_and_latches_then() -> None:
    rules = machine(ESTOP)
    held = rules.restriction("base"), rules.restriction("arm")
    assert all(found is not None and found.is_stopped for found in held)
    assert rules.latches == {}
    rules.tick(AGE_S)
    assert rules.latches == {"estop": "estop: estop has not been measured in time"}
    read(rules, 0.4, estop=True)
    assert rules.latches == {}
    assert rules.restriction("base") is None
    read(rules, 0.5, estop=False)
    assert rules.latches == {"estop": "estop: the stop input is open"} == rules.holding
    assert rules.reasons() == ["estop: the stop input is open"]


def test_a_fault_restricts_at_once_and_latches_after_it_has_lasted() -> None:
    """A machine that was busy for a moment is not stopped for good; an open contact waits for nothing."""
    rules = machine(ESTOP)
    read(rules, 0.1, estop=True)
    rules.tick(0.4)
    assert rules.holding == {"estop": "estop: estop was measured longer than 0.3 s ago"}
    assert rules.latches == {}
    assert rules.due == pytest.approx(0.4 + LATCH_S)
    read(rules, 0.5, estop=True)
    assert rules.holding == {}
    rules.sense("estop", Measurement(0.6, None, "it hangs"), 0.6)
    rules.tick(0.84)
    assert rules.latches == {}
    assert rules.due == pytest.approx(0.6 + LATCH_S)
    rules.tick(rules.due)
    assert rules.latches == {"estop": "estop: estop has no value: it hangs"}


@pytest.mark.parametrize(("joint", "latches"), [("and", False), ("or", True)])
def test_a_condition_that_may_not_hold_yet_does_not_latch(joint: str, latches: bool) -> None:
    rules = machine(Rule("hot", parse(f"a > 1 {joint} b > 1"), RuleAction.LATCH))
    read(rules, 0.1, a=2.0)
    assert bool(rules.latches) is latches
    assert "hot" in rules.holding


def test_causes() -> None:
    weak = Rule("weak", parse(POWER), RuleAction.LIMIT, ("base",), limit=0.2, text="the supply is weak")
    after = Rule("after", parse(FAULT), RuleAction.STOP, ("base",))
    rules = machine(weak, after)
    rules.sense(POWER, Measurement(0.1, False), 0.1)
    assert rules.restriction("base") is None
    rules.sense(POWER, Measurement(0.2, True), 0.2)
    assert rules.holding == {"weak": "weak: the supply is weak"}
    assert rules.reasons() == ["the firmware reports undervoltage"]
    assert rules.note(FAULT, True, 0.3)
    assert rules.holding["after"] == "after: lane fault"
    assert not rules.note(FAULT, True, 0.3)


def test_a_lost_link_is_an_event() -> None:
    rules = machine(Rule("gone", parse(LINK), RuleAction.LATCH, ("base",)))
    assert rules.holding == {}
    assert [rule.name for rule in rules.lost("base")] == ["gone"]
    assert list(rules.lost("arm")) == []


@pytest.mark.parametrize(
    ("restriction", "value", "bound", "refuses"),
    [
        (Restriction(limit=0.5), (1.0, -0.5), (0.5, -0.25), False),
        (Restriction(limit=0.5), -0.8, -0.5, False),
        (Restriction(limit=0.5), 0.3, 0.3, False),
        (Restriction(limit=0.0), (1.0, 1.0), (0.0, 0.0), False),
        (Restriction(refused=(1.0,)), (0.5, -0.5), (0.0, -0.5), True),
        (Restriction(refused=(1.0,)), (-0.5, 0.0), (-0.5, 0.0), False),
        (Restriction(refused=(-1.0, 1.0)), 0.1, 0.0, True),
        (Restriction(is_stopped=True), None, None, True),
        (Restriction(is_stopped=True), True, True, True),
    ],
)
def test_restrictions(restriction: Restriction, value: Any, bound: Any, refuses: bool) -> None:
    assert restriction.bound(value) == bound
    assert restriction.refuses(value) is refuses


def test_of_two_ways_to_rest_the_faster_one() -> None:
    slow = Rule("slow", parse("a > 1"), RuleAction.RAMP, ("base",), ramp=0.5)
    fast = Rule("fast", parse("b > 1"), RuleAction.STOP, ("base",))
    rules = machine(slow, fast)
    read(rules, 0.1, a=2.0, b=0.0)
    first = rules.restriction("base")
    read(rules, 0.2, b=2.0)
    second = rules.restriction("base")
    assert first is not None
    assert second is not None
    assert (first.ramp, second.ramp) == (0.5, 0.0)
    assert first.is_looser(second) is False
    assert Restriction().is_looser(first)
