from __future__ import annotations

import pytest

from taskengine.broker import failure_reasons
from taskengine.errors import NotAllowed
from taskengine.protocol.limits import DENIED_RUNS, DENIED_TASKS, MAX_NAME_LENGTH


@pytest.mark.parametrize("denied", [[1], [DENIED_TASKS], [1] * DENIED_RUNS])
def test_what_is_denied_in_few_places_is_answered_alone(denied: list[int]) -> None:
    failure_reasons.check_denied(denied)


@pytest.mark.parametrize("denied", [[DENIED_TASKS, 1], [1] * (DENIED_RUNS + 1)])
def test_what_is_denied_in_plenty_is_not(denied: list[int]) -> None:
    with pytest.raises(NotAllowed, match=str(sum(denied))):
        failure_reasons.check_denied(denied)


def test_a_denied_name_is_told_in_short() -> None:
    assert len(str(failure_reasons.denied("x" * 10**6))) < 2 * MAX_NAME_LENGTH + 100


def test_who_was_lost_is_a_field() -> None:
    assert failure_reasons.lost("TASK-7").fields["worker"] == "TASK-7"
