from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from taskengine import Origin
from taskengine_hardware.admission import Admission
from taskengine_hardware.control import Control
from taskengine_hardware.shared_state import SharedState
from tests.hardware import schedules, words


def test_a_lane_never_has_two_owners() -> None:
    """`python -m tests.hardware.schedules` plays a million."""
    doubled, takeovers = schedules.run(200_000, seed=6)
    assert doubled == 0
    assert takeovers > 20_000


def test_a_guardian_that_forgets_the_lock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules.World, "take", lambda world, who: True)
    assert schedules.run(5_000, seed=1)[0] > 0


def test_a_guardian_that_gives_the_lock_back_first_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(world: schedules.World, known: object = schedules.World.guardian_steps) -> None:
        known(world)  # type: ignore[operator]  # a method
        if world.plan == ["release", "unlock"]:
            world.plan = ["unlock", "release"]

    monkeypatch.setattr(schedules.World, "guardian_steps", steps)
    assert schedules.run(20_000, seed=1)[0] > 0


def test_in_the_end_somebody_has_the_pins() -> None:
    """Without deaths, an owner gets them, whatever happened before."""
    rng = random.Random(3)
    for _ in range(500):
        world = schedules.World(rng)
        for _ in range(schedules.STEPS):
            world.step()
        for _ in range(200):
            if world.stage < 4 or world.owner is None:
                world.owner_steps()
            world.guardian_steps()
            if world.owner is not None and world.pins == {world.owner}:
                break
        assert world.pins == {world.owner}


def test_nothing_moves_without_a_live_word_and_no_stop_is_undone_by_an_older_one() -> None:
    """`python -m tests.hardware.schedules` plays a million."""
    broken, seen = words.play(20_000, seed=6)
    assert not broken
    assert seen["moved"] > 10_000
    assert seen["armed"] > 5_000
    assert min(seen[deed] for deed in {*words.DEEDS, "TaskTimeout", "Cancelled", "NotAllowed"}) > 200


def _nothing(*_: object, **__: object) -> None:
    """A check that finds nothing."""


def _arms_all(admission: Admission, origin: Origin, number: object, now: float) -> None:
    """An arm that does not look at what it undoes."""
    panel = admission._panel
    if not panel.arm(panel.number, origin.holder, int(now * words.NS)):
        raise AssertionError("this is the number")


FAULTS: dict[str, tuple[type, str, Callable[..., Any], str]] = {
    "looks at no age": (Admission, "_check_age", _nothing, "s old|at rest"),
    "asks for no consent": (Admission, "_check_consent", _nothing, "has not consented"),
    "forgets who holds a device": (Admission, "_check_hold", _nothing, "another client holds it"),
    "forgets rests": (SharedState, "rested", lambda panel, place: (0, 0), "brought to rest"),
    "arms whatever is named": (Admission, "arm", _arms_all, "was undone by"),
    "ends no lease": (Control, "_end_leases", _nothing, "after its last word was good"),
    "counts a stop twice": (SharedState, "_known", lambda panel, id: 0, "is another one"),
    "hears of no stop": (Control, "_act_on_stop", _nothing, "moves although the machine is stopped"),
    "takes what is older than a stop": (Admission, "_check_stop", _nothing, "stop"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_control_with_a_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong, said = FAULTS[fault]
    assert hasattr(owner, name)
    monkeypatch.setattr(owner, name, wrong)
    broken, _ = words.play(10_000, seed=1)
    assert broken
    assert any(re.search(said, one) for one in broken), broken
