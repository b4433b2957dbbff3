from __future__ import annotations

from taskengine.supervisor.backoff import FIRST_S, LONGEST_S, SETTLED_S, Backoff


def test_who_was_of_use_is_replaced_at_once() -> None:
    backoff = Backoff()
    assert [backoff.next(0.0, online=True, useful=True) for _ in range(9)] == [0.0] * 9


def test_lives_of_no_use_are_slowed_down_from_the_third_on_up_to_a_limit() -> None:
    backoff = Backoff()
    delays = [backoff.next(0.0, online=True, useful=False) for _ in range(14)]
    assert delays[:5] == [0.0, 0.0, FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert delays[-1] == LONGEST_S
    assert delays == sorted(delays)


def test_who_dies_while_starting_is_slowed_down_at_once() -> None:
    backoff = Backoff()
    assert [backoff.next(0.0, online=False, useful=False) for _ in range(2)] == [FIRST_S, 2 * FIRST_S]


def test_a_settled_or_useful_life_forgives() -> None:
    for lived, useful in ((SETTLED_S, False), (0.0, True)):
        backoff = Backoff()
        for _ in range(5):
            backoff.next(0.0, online=True, useful=False)
        assert backoff.next(lived, online=True, useful=useful) == 0.0
        assert backoff.next(0.0, online=True, useful=False) == 0.0
