"""A table of all that once moved, did not stop, or was told falsely: each is played on a real engine on mock pins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine import alive
from tests.hardware.safety import motion, stops, truth  # noqa: F401  # their plays
from tests.hardware.safety.site import Site
from tests.hardware.safety.table import PLAYS, Play

CHIP = Path(__file__).parents[1] / "gpio"
pytestmark = [pytest.mark.system, pytest.mark.alone]
ITEMS = {
    1: "a dead link's commands",
    2: "a dead client's queue",
    3: "commands from before a stop",
    4: "motion after an owner's crash",
    5: "an ended lease that is skipped",
    6: "limits that do not hold",
    7: "stops that wait, or are lost",
    8: "rests that wait, or are refused",
    9: "strangers taken for the holder",
    10: "safe states that drive",
    11: "supervisor and guardian killed together",
    12: "an owner that stands still without a lease",
    13: "healthy owners that are killed",
    14: "blips",
    15: "values that are converted",
    16: "commands done by half",
    17: "sensors that say what they did not measure",
    18: "states that are not so",
    19: "tables that end the engine",
}
ON_THE_CHIP = {
    4: "test_safety.py::test_an_owner_that_is_killed",
    7: "test_safety.py::test_stopping_and_arming",
    11: "test_endings.py::test_a_supervisor_that_is_killed",
    12: "test_safety.py::test_an_owner_that_is_stopped",
    14: "test_blips.py::test_what_is_safe_while_high_is_never_low_at_a_hand_over",
    17: "test_inputs.py::test_what_nobody_answers_has_no_value",
}
"""Where levels matter, the same on the lines of a kernel's chip (`make test-gpio`)."""
ALONE = {"13-healthy_owners_are_not_ended_on_a_busy_machine"}
"""Plays that take the processor from whatever runs beside them."""
Settings = tuple[tuple[str, Any], ...]


class Sites:
    """An engine for each kind of settings, as long as it lives."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._sites: dict[Settings, Site] = {}

    def get(self, settings: Settings) -> Site:
        """One that is armed."""
        site = self._sites.get(settings)
        if site is None or not alive(site.engine.process.pid):
            site = self._sites[settings] = Site(self._factory.mktemp("site"), **dict(settings))
        site.arm()
        return site

    def drop(self, settings: Settings) -> None:
        """Forget one."""
        site = self._sites.pop(settings, None)
        if site is not None:
            site.close()

    def close(self) -> None:
        """Stop them."""
        for settings in list(self._sites):
            self.drop(settings)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    made = Sites(tmp_path_factory)
    yield made
    made.close()


@pytest.mark.parametrize(
    "play",
    [pytest.param(play, id=play.name, marks=[pytest.mark.alone] if play.name in ALONE else []) for play in PLAYS],
)
def test_it_does_not_happen(play: Play, sites: Sites) -> None:
    site = sites.get(play.settings)
    try:
        play.function(site)
    except BaseException:
        print(site.engine.output())
        sites.drop(play.settings)  # whatever state it is in
        raise
    if play.is_last:
        sites.drop(play.settings)


def test_every_item_is_played_and_levels_are_read_from_a_chip_where_they_matter() -> None:
    assert {play.item for play in PLAYS} == ITEMS.keys()
    assert {play.name for play in PLAYS} >= ALONE
    for name in ON_THE_CHIP.values():
        file, _, function = name.partition("::")
        assert f"def {function}(" in (CHIP / file).read_text()
