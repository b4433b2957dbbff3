from __future__ import annotations

import random

import pytest

from tests.hardware import schedules


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
