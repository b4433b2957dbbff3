from __future__ import annotations

import pytest

from taskengine import wire
from taskengine._fastpath import Slate
from taskengine.crew import Crew
from taskengine.errors import ProtocolError
from taskengine.salvage import SENSELESS


@pytest.fixture
def memory() -> bytearray:
    return bytearray(wire.SLATE_BYTES)


def test_who_is_who(memory: bytearray) -> None:
    slate = Slate(memory)
    crew = Crew([slate])
    assert crew.name_of(b"id") is None
    assert crew.is_free(0)
    crew.enlist("TASK-1", b"id", 0, 1)
    assert (crew.name_of(b"id"), crew.identity_of("TASK-1"), crew.is_free(0)) == ("TASK-1", b"id", False)
    member = crew.dismiss("TASK-1")
    assert member is not None
    assert member.slate is slate
    assert crew.dismiss("TASK-1") is None
    assert crew.name_of(b"id") is None
    assert crew.is_free(0)


@pytest.mark.parametrize("place", [-1, 1, 2**40])
def test_a_place_that_there_is_not(memory: bytearray, place: int) -> None:
    with pytest.raises(ProtocolError, match="place"):
        Crew([Slate(memory)]).enlist("TASK-1", b"id", place, 1)


def test_a_place_that_is_taken(memory: bytearray) -> None:
    crew = Crew([Slate(memory)])
    crew.enlist("TASK-1", b"id", 0, 1)
    with pytest.raises(ProtocolError, match="taken"):
        crew.enlist("TASK-2", b"other", 0, 2)
    assert crew.name_of(b"other") is None


def test_a_worker_starts_with_a_clean_slate_and_may_be_overdue(memory: bytearray) -> None:
    crew = Crew([Slate(memory)])
    until = 8 * 6  # pane 0's, behind recall, finished, busy, number, committed and done
    memory[until : until + 8] = (100).to_bytes(8, "little")
    member = crew.enlist("TASK-1", b"id", 0, 1)
    assert list(crew.overdue(10**18)) == []
    memory[until : until + 8] = (100).to_bytes(8, "little")
    assert member.slate.until_ns == 100
    assert list(crew.overdue(99)) == []
    assert list(crew.overdue(100)) == ["TASK-1"]


def test_an_account_without_sense_is_known_as_such(memory: bytearray) -> None:
    member = Crew([Slate(memory)]).enlist("TASK-1", b"id", 0, 1)
    assert member.account(5) is None
    assert member.account(0) is SENSELESS  # all zeros are no account
