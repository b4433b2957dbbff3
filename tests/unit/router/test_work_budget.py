from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.tuning import LATEST_RETRY_S, SOONEST_RETRY_S
from taskengine.protocol.limits import MAX_CLIENTS
from taskengine.router.work_budget import ABOVE_MEAN, WAITING_S, WorkBudget

MESSAGE_S = 0.001


def busy(budget: WorkBudget, parts: dict[str, float], now: float, seconds: float = 3.0) -> float:
    """Clients keep the router busy for these parts of the time; when that ends."""
    for step in range(int(seconds / 0.01)):
        for client, part in parts.items():
            budget.charge(client, 0.01 * part, now + 0.01 * step)
    return now + seconds


def test_alone_a_client_may_keep_the_router_busy() -> None:
    budget = WorkBudget()
    now = busy(budget, {"greedy": 1.0}, 100.0)
    assert budget.excess("greedy", now) is None


def test_whoever_takes_all_is_refused_while_another_waits_and_the_other_is_not() -> None:
    budget = WorkBudget()
    now = busy(budget, {"greedy": 0.65, "honest": 0.02}, 100.0)
    excess = budget.excess("greedy", now)
    assert excess is not None
    assert not excess.is_stubborn
    assert SOONEST_RETRY_S <= excess.retry_after <= LATEST_RETRY_S
    assert budget.excess("honest", now) is None
    assert budget.excess("newcomer", now) is None
    budget.charge("honest", MESSAGE_S, now + excess.retry_after)
    assert budget.excess("greedy", now + excess.retry_after + 0.2) is None, "it came back when it was told to"


def test_a_glance_at_the_counters_refuses_nobody() -> None:
    budget = WorkBudget()
    now = busy(budget, {"greedy": 0.9}, 100.0)
    budget.charge("top", 0.0005, now)
    assert budget.excess("greedy", now) is None
    budget.charge("top", WAITING_S, now)
    assert budget.excess("greedy", now) is not None


def test_it_is_told_once_and_cut_off_where_it_heeds_nothing() -> None:
    budget = WorkBudget()
    told = []
    now = 100.0
    for _ in range(400):
        now = busy(budget, {"greedy": 0.95, "honest": 0.01}, now, 0.01)
        excess = budget.excess("greedy", now)
        if excess is not None and excess.is_news:
            told.append(excess.is_stubborn)
    assert told == [False, True]
    now = busy(budget, {"honest": 0.01}, now, 5.0)
    busy(budget, {"greedy": 0.65, "honest": 0.01}, now, 3.0)
    excess = budget.excess("greedy", now + 3.0)
    assert excess is not None
    assert excess.is_news, "it had rested"


@pytest.mark.parametrize("clients", [2, 5, 50])
def test_of_equal_clients_none_is_refused_however_busy_the_router_is(clients: int) -> None:
    budget = WorkBudget()
    names = [f"{number}" for number in range(clients)]
    now = busy(budget, dict.fromkeys(names, 0.98 / clients), 100.0)
    assert [budget.excess(name, now) for name in names] == [None] * clients


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), st.floats(0, 0.5), min_size=1))
def test_nobody_below_the_mean_is_refused(parts: dict[str, float]) -> None:
    budget = WorkBudget()
    now = busy(budget, parts, 100.0, 1.0)
    mean = sum(parts.values()) / len(parts)
    for name, part in parts.items():
        if part <= ABOVE_MEAN * mean * 0.99:
            assert budget.excess(name, now) is None


def test_memory_is_bounded() -> None:
    budget = WorkBudget()
    for number in range(10 * MAX_CLIENTS):
        budget.charge(str(number), MESSAGE_S, 100.0 + number * 1e-5)
    assert len(budget._spent) <= MAX_CLIENTS + 1
    budget.charge("x", MESSAGE_S, 200.0)
    assert len(budget._spent) == 1
