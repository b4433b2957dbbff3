from __future__ import annotations

from taskengine.backoff import FIRST_S, LONGEST_S, SETTLED_S, Backoff


def test_the_first_death_is_replaced_at_once() -> None:
    assert Backoff().next(lived=0.0) == 0.0


def test_short_lives_are_slowed_down_up_to_a_limit() -> None:
    backoff = Backoff()
    delays = [backoff.next(lived=0.0) for _ in range(12)]
    assert delays[:4] == [0.0, FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert delays[-1] == LONGEST_S
    assert delays == sorted(delays)


def test_a_settled_life_forgives() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next(lived=0.0)
    assert backoff.next(lived=SETTLED_S) == 0.0
    assert backoff.next(lived=0.0) == 0.0
