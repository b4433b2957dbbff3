"""No sequence of readings, faults, times and commands drives an output against a rule that holds."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskengine_hardware.admission import Admission
from taskengine_hardware.outputs import Output
from taskengine_hardware.plausibility import Judge
from taskengine_hardware.restraints import Restraints
from taskengine_hardware.rules import Restriction, Rules
from taskengine_hardware.shared_state import SharedState
from tests.hardware import rule_schedules

PANEL = SharedState(rule_schedules.LAYOUT)


def test_no_schedule_drives_against_a_rule_that_holds() -> None:
    """`make test-rules` plays a million."""
    broken, seen = rule_schedules.play(600, seed=17)
    assert broken == []
    assert seen["carried out"] > 1_500
    assert min(seen[deed] for deed in {*rule_schedules.DEEDS, "refused", "armed", "not armed", "too old"}) > 10


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_schedule_that_hypothesis_finds_does(rng: random.Random) -> None:
    rule_schedules.run(rng, PANEL)


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def _granted(admission: Admission, output: Output, origin: Any, now: float, known: Any = Admission.grant) -> None:
    known(admission, output, origin, now)
    output.granted = origin


def _any(judge: Judge, value: float, at: float) -> str:
    """A look at a value that finds nothing wrong."""
    judge._value = value
    return ""


def _stays(restraints: Restraints, now: float) -> None:
    """A ramp that does not sink."""
    restraints._next_step = now + 0.02


def _restricted(output: Output, restriction: Restriction | None) -> None:
    output.restriction = restriction
    output.granted = None


FAULTS: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "trusts whatever was said": (Judge, "fault", lambda judge, now: "" if judge._latest else "new", "."),
    "looks at no value": (Judge, "_judged", _any, "."),
    "never looks again": (Judge, "due", lambda judge, now: float("inf"), "."),
    "restricts nothing": (Restraints, "_restrict", _nothing, "."),
    "refuses nothing": (Restriction, "refuses", lambda restriction, value: False, "which a rule refuses"),
    "bounds nothing": (Restriction, "bound", lambda restriction, value: value, "above its limit"),
    "forgets to check a package": (Admission, "grant", _granted, "which a rule refuses"),
    "does not bound what goes on": (Output, "restrict", _restricted, "above its limit"),
    "latches nothing": (Restraints, "_latch", _nothing, "the machine is not stopped"),
    "arms whatever is wrong": (Rules, "reasons", lambda rules: [], "was armed, and its inputs say"),
    "ramps for ever": (Restraints, "_sink", _stays, "above its ramp"),
    "refuses too much": (Restriction, "refuses", lambda restriction, value: True, "which no rule forbids"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_control_with_a_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong, said = FAULTS[fault]
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, wrong)
    broken, _ = rule_schedules.play(600, seed=1)
    assert broken
    assert any(re.search(said, one) for one in broken), broken
