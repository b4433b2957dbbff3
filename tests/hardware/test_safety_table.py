"""A table of all that once moved, did not stop, or was told falsely: each is played on a real engine on mock pins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine import alive
from tests.hardware.safety import motion, stops, truth  # noqa: F401  # their plays
from tests.hardware.safety.site import Site
from tests.hardware.safety.table import PLAYS, Play

pytestmark = pytest.mark.system
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


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)
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
