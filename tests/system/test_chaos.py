"""The guarantees hold while everything is done to an engine that hurts; `make chaos` does it for longer."""

from __future__ import annotations

import pytest

from tests.chaos import hostile, million
from tests.chaos.run import run_chaos

pytestmark = [pytest.mark.system, pytest.mark.alone, pytest.mark.long]


def test_every_guarantee_holds_while_everything_hurts() -> None:
    report = run_chaos(20.0, seed=4)
    assert report.broken == []
    assert report.judgement.results > 1000, "the clients were served beside it"
    assert report.judgement.values > 1000, "so were those that read streams"
    assert report.worker_recoveries_s, "workers were killed and replaced"
    assert report.router_recoveries_s, "so was the router"


def test_hostile_peers_reach_nothing_and_leave_nothing() -> None:
    report = hostile.run_hostile(3.0, peers=300, seed=7)
    assert hostile.broken(report) == []
    assert report.files_during > report.files_before, "they were there"
    assert report.files_after <= report.files_before


def test_a_stalled_reader_costs_the_router_little() -> None:
    report = million.run_million(200_000, 1000, 1.0)
    assert million.broken(report) == []
    assert report.beside, "the other was served"
