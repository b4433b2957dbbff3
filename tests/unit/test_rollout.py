from __future__ import annotations

from taskengine.rollout import Rollout

PATIENCE = 5.0


def test_one_after_the_other_and_nobody_twice() -> None:
    rollout = Rollout(["a", "b"], PATIENCE)
    assert not rollout.is_over()
    assert rollout.next(0.0) == "a"
    assert rollout.next(1.0) is None
    rollout.renewed("b")  # it died by itself
    assert rollout.next(1.0) is None
    rollout.renewed("a")
    assert rollout.next(2.0) == "b"
    assert not rollout.is_over()
    rollout.renewed("b")
    assert rollout.is_over()
    assert rollout.next(3.0) is None


def test_one_that_takes_long_is_not_waited_for() -> None:
    rollout = Rollout(["a", "b"], PATIENCE)
    rollout.next(0.0)
    assert rollout.next(4.9) is None
    assert rollout.next(5.0) == "b"
    rollout.renewed("a")
    assert rollout.next(9.9) is None
    assert rollout.next(10.0) is None
    assert rollout.is_over()


def test_nobody_is_renewed_where_nobody_is() -> None:
    assert Rollout([], PATIENCE).is_over()


def test_a_new_process_is_waited_for_while_it_loads() -> None:
    rollout = Rollout(["a", "b"], PATIENCE)
    rollout.next(0.0)
    rollout.started("b", 99.0)
    rollout.started("a", 60.0)
    assert rollout.next(59.9) is None
    assert rollout.next(60.0) == "b"
