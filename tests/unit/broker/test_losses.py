from __future__ import annotations

from taskengine.broker.losses import Losses
from taskengine.broker.tuning import DEATHS


def test_a_task_is_repeated_until_as_many_workers_as_that_have_died_at_it() -> None:
    made = Losses()
    assert [made.may_repeat(7) for _ in range(DEATHS)] == [True] * (DEATHS - 1) + [False]
    assert made.may_repeat(8)


def test_a_chunk_is_lost_when_as_many_workers_as_that_have_died_before_it() -> None:
    made = Losses()
    assert [made.blame(1) for _ in range(DEATHS)] == [False] * (DEATHS - 1) + [True]
    assert not made.blame(2)
