from __future__ import annotations

import pytest

from taskengine.broker.costs import Costs
from taskengine.broker.tuning import MAX_KINDS


def test_the_first_measure_of_a_kind_is_news_and_later_ones_move_it() -> None:
    costs = Costs()
    assert costs.learn(("a",), 10, 1000) == 100.0
    assert costs.learn(("a",), 10, 3000) is None
    assert costs.known == {("a",): 200.0}
    assert costs.mean_ns == pytest.approx(175.0)


def test_what_took_no_time_costs_something() -> None:
    assert Costs().learn(("a",), 2, 0) == 0.5


def test_the_oldest_kind_gives_way() -> None:
    costs = Costs()
    for number in range(MAX_KINDS + 1):
        costs.learn((str(number),), 1, 1)
    assert len(costs.known) == MAX_KINDS
    assert ("0",) not in costs.known
    assert (str(MAX_KINDS),) in costs.known
