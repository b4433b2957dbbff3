from __future__ import annotations

import pytest

from taskengine import causes
from taskengine.errors import NotAllowed
from taskengine.wire import DENIED_RUNS, DENIED_TASKS, NAME_TOLD


@pytest.mark.parametrize("denied", [[1], [DENIED_TASKS], [1] * DENIED_RUNS])
def test_what_is_denied_in_few_places_is_answered_alone(denied: list[int]) -> None:
    causes.check_denied(denied)


@pytest.mark.parametrize("denied", [[DENIED_TASKS, 1], [1] * (DENIED_RUNS + 1)])
def test_what_is_denied_in_plenty_is_not(denied: list[int]) -> None:
    with pytest.raises(NotAllowed, match=str(sum(denied))):
        causes.check_denied(denied)


def test_a_denied_name_is_told_in_short() -> None:
    assert len(str(causes.denied("x" * 10**6))) < 2 * NAME_TOLD + 100


def test_who_was_lost_is_a_field() -> None:
    assert causes.lost("TASK-7").fields["worker"] == "TASK-7"
