"""The guarantees hold while everything is done to an engine that hurts; `make chaos` does it for longer."""

from __future__ import annotations

import pytest

from tests.chaos.run import run_chaos

pytestmark = pytest.mark.system


def test_every_guarantee_holds_while_everything_hurts() -> None:
    report = run_chaos(20.0, seed=4)
    assert report.broken == []
    assert report.judgement.results > 1000, "the clients were served beside it"
    assert report.worker_recoveries_s, "workers were killed and replaced"
    assert report.router_recoveries_s, "so was the router"
