from __future__ import annotations

import pytest

from tests.claims.model import Rules, explore

DOUBLED = "a task ran twice, or ran and was taken back"
LOST = "a task was lost"


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_whatever_the_order_each_task_is_run_or_taken_back_once(tasks: int) -> None:
    found = explore(Rules(tasks=tasks))
    assert found.problems == set()
    assert found.states > 10 * tasks


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        (Rules(claims_at_once=False), DOUBLED),
        (Rules(takes_at_once=False), DOUBLED),
        (Rules(releases=False), "a published result cannot be read"),
    ],
)
def test_a_mistake_is_found(rules: Rules, problem: str) -> None:
    assert problem in explore(rules).problems
