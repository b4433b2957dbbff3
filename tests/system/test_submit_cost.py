"""What a submit costs its caller, and 4000 of them beside the standard library's pool of processes."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec
import pytest

from bench.engine import Engine
from bench.figures import ratio, together
from bench.ours import Ours
from bench.pools import EXECUTOR as POOL
from bench.pools import Executor as Pool
from bench.quiet import Quiet
from bench.report import OURS
from bench.scenarios import FULL
from bench.submits import EXECUTOR, submitting, w4
from taskengine import Executor
from tests.engine import FACTOR

pytestmark = [pytest.mark.system, pytest.mark.alone, pytest.mark.long]
PLAN = msgspec.structs.replace(FULL, submit_rounds=4)
MOST_S = 8e-6
"""Of the caller's time, for each call."""
MOST_OF_THE_POOLS = 0.1


def test_a_submit_is_cheap() -> None:
    with ExitStack() as stack:
        pool = Pool()
        stack.callback(pool.close)
        engine = stack.enter_context(Engine())
        ours = Ours(OURS, engine.address)
        stack.callback(ours.close)
        executor = stack.enter_context(Executor(engine.address))
        spans = w4(submitting(ours, executor, pool), PLAN, Quiet(5.0))
    for name in OURS, EXECUTOR:
        # at best, and in the better rounds: what others on the machine took is no cost of ours
        assert min(together(spans.caller[name])) <= MOST_S * FACTOR
        assert ratio(spans.results[name], spans.results[POOL]).low <= MOST_OF_THE_POOLS
