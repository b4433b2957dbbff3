"""Figures that the soak calls growth, and figures that it does not."""

from __future__ import annotations

import pytest

from tests.chaos.growth import Sample, broken, growth, warm_after

MIB = 2**20
REST = Sample(10 * MIB, 20 * MIB, 30, 3, 0)


def test_what_stays_has_not_grown() -> None:
    assert broken({"router": [REST] * 50, "never seen": []}) == []
    assert growth([REST]).broken() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pss": 11 * MIB, "rss": 21 * MIB}, "router: memory grew by 1.00 MiB"),
        ({"descriptors": 31}, "router: descriptors grew from 30 to 31"),
        ({"threads": 4}, "router: threads grew from 3 to 4"),
        ({"zombies": 1}, "router: zombies grew from 0 to 1"),
    ],
)
def test_growth_is_found(change: dict[str, int], said: str) -> None:
    assert broken({"router": [*[REST] * 40, *[REST._replace(**change)] * 10]}) == [said]


def test_what_is_only_no_longer_shared_is_no_growth() -> None:
    assert broken({"router": [*[REST] * 40, *[REST._replace(pss=15 * MIB)] * 10]}) == []


def test_what_comes_and_goes_is_no_growth() -> None:
    assert broken({"router": [REST, REST._replace(descriptors=35)] * 25}) == []


def test_a_short_run_is_warm_sooner() -> None:
    assert (warm_after(600.0), warm_after(30.0)) == (60.0, 10.0)
