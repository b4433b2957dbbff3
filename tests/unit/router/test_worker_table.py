from __future__ import annotations

import pytest

from taskengine import _fastpath
from taskengine._fastpath import CallTable, ProgressPage, read_answer
from taskengine.broker.recovery import BEGUN, SENSELESS, Account
from taskengine.errors import ProtocolError
from taskengine.protocol import layouts
from taskengine.protocol.layouts import NO_ANSWER
from taskengine.router.worker_table import WorkerTable
from tests.batches import Failures, batch_of, no_foreign, task

UNTIL = 8 * 6
"""Where slot 0 has it, behind recall, finished, busy, number, committed and done."""


@pytest.fixture
def memory() -> bytearray:
    return bytearray(layouts.PROGRESS_BYTES)


def crew_of(*memories: bytearray) -> WorkerTable:
    """A crew that expects TASK-0, TASK-1, … at their places."""
    crew = WorkerTable([ProgressPage(memory) for memory in memories])
    for place in range(len(memories)):
        crew.expect(f"TASK-{place}", place, 100 + place, is_fresh=True)
    return crew


def test_who_is_who(memory: bytearray) -> None:
    crew = crew_of(memory)
    assert crew.name_of(b"id") is None
    assert crew.expects("TASK-0", 0)
    assert not crew.is_here("TASK-0")
    assert crew.pid_of("TASK-0") == 100
    crew.enlist("TASK-0", b"id", 0)
    assert (crew.name_of(b"id"), crew.identity_of("TASK-0"), crew.is_here("TASK-0")) == ("TASK-0", b"id", True)
    assert not crew.expects("TASK-0", 0)
    assert crew.dismiss("TASK-0") is not None
    assert crew.dismiss("TASK-0") is None
    assert crew.name_of(b"id") is None


def test_a_worker_that_is_dead_before_it_is_here_owes_nothing(memory: bytearray) -> None:
    crew = crew_of(memory)
    assert crew.dismiss("TASK-0") is None
    with pytest.raises(ProtocolError, match="is dead"):
        crew.enlist("TASK-0", b"id", 0)
    assert crew.name_of(b"id") is None


@pytest.mark.parametrize("place", [-1, 1, 2, 2**40])
def test_a_worker_has_its_own_place(memory: bytearray, place: int) -> None:
    crew = crew_of(memory, bytearray(layouts.PROGRESS_BYTES))
    with pytest.raises(ProtocolError, match="place"):
        crew.enlist("TASK-0", b"id", place)
    assert crew.expects("TASK-0", 0)


def test_a_fresh_workers_slate_tells_of_another(memory: bytearray) -> None:
    crew = crew_of(memory)
    page = ProgressPage(memory)
    memory[UNTIL : UNTIL + 8] = (100).to_bytes(8, "little")
    page.busy(busy=True)
    assert list(crew.overdue(10**18)) == []
    page.busy(busy=False)
    assert crew.is_at_task("TASK-0"), "it loads its modules"
    crew.expect("TASK-0", 0, 100, is_fresh=False)  # it is known already
    assert list(crew.overdue(10**18)) == []
    crew.dismiss("TASK-0")
    crew.expect("TASK-0", 0, 100, is_fresh=False)
    assert list(crew.overdue(99)) == []
    assert list(crew.overdue(100)) == ["TASK-0"]
    assert not crew.is_at_task("TASK-0")


def test_a_worker_begins_with_a_clean_slate_but_for_what_it_has_written_itself(memory: bytearray) -> None:
    crew = crew_of(memory)
    memory[UNTIL : UNTIL + 8] = (100).to_bytes(8, "little")
    ProgressPage(memory).busy(busy=True)
    member = crew.enlist("TASK-0", b"id", 0)
    assert list(crew.overdue(10**18)) == []
    assert crew.is_at_task("TASK-0")
    memory[UNTIL : UNTIL + 8] = (100).to_bytes(8, "little")
    assert member.is_overdue(100)
    assert list(crew.overdue(100)) == ["TASK-0"]


def test_an_account_without_sense_is_known_as_such(memory: bytearray) -> None:
    member = crew_of(memory).enlist("TASK-0", b"id", 0)
    assert member.account(5) is None
    assert member.account(0) is SENSELESS  # all zeros are no account


def test_a_slate_whose_memory_the_system_keeps_is_used_all_the_same() -> None:
    class Kept(bytearray):
        def madvise(self, advice: int, start: int, length: int) -> None:
            assert start % 2**16 == length % 2**16 == 0, "pages may be that large"
            raise OSError(22, "Invalid argument")

    assert ProgressPage(Kept(layouts.PROGRESS_BYTES)).release(3) is False


def test_a_worker_of_an_earlier_router_is_awaited_until_it_is_here_or_dead(memory: bytearray) -> None:
    crew = crew_of(memory, bytearray(layouts.PROGRESS_BYTES))
    assert not crew.awaits_elders()
    crew.dismiss("TASK-0")
    crew.expect("TASK-7", 0, 107, is_fresh=False)
    assert crew.awaits_elders()
    crew.enlist("TASK-7", b"id", 0)
    assert not crew.awaits_elders()
    crew.dismiss("TASK-1")
    crew.expect("TASK-8", 1, 108, is_fresh=False)
    assert crew.awaits_elders()
    crew.dismiss("TASK-8")
    assert not crew.awaits_elders()


def test_a_worker_that_runs_many_tasks_tells_which_it_has_begun_and_which_are_overdue(memory: bytearray) -> None:
    crew, calls = crew_of(memory), CallTable(ProgressPage(memory))
    calls.begin(5, 7)
    member = crew.enlist("TASK-0", b"id", 0, is_concurrent=True)
    assert member.account(7) is None, "that was another router's"
    calls.begin(0, 8)
    calls.begin(1, 9)
    assert [member.account(number) for number in (7, 8, 9)] == [None, BEGUN, BEGUN]
    assert not member.is_overdue(2**63)
    calls.limit(1, 1)
    assert list(crew.overdue(2**63)) == ["TASK-0"]
    assert member.overdue_batches(2**63) == [9]
    assert member.overdue_batches(1) == []
    calls.end(1, bytes(5000))
    assert not member.is_overdue(2**63)
    assert member.account(9) is BEGUN, "so large an answer is not kept"
    assert crew.is_concurrent("TASK-0")
    crew.dismiss("TASK-0")
    assert not crew.is_concurrent("TASK-0")


def test_what_a_worker_that_runs_many_tasks_has_answered_outlives_it(memory: bytearray) -> None:
    crew, calls = crew_of(memory), CallTable(ProgressPage(memory))
    member = crew.enlist("TASK-0", b"id", 0, is_concurrent=True)
    answer = _fastpath.run_batch(batch_of([task(0)]), lambda _: [lambda: "done"], Failures(), no_foreign)
    for place, number in enumerate((8, 9, 10)):
        calls.begin(place, number)
    calls.end(0, answer)
    calls.end(1, NO_ANSWER)
    calls.end(2, b"\xff" * 40)
    assert member.account(8) == Account(read_answer(answer), None, None)
    assert member.account(9) is BEGUN
    assert member.account(10) is SENSELESS
    crew.release("TASK-0", 8)  # another answer was large; that is no reason to forget this one
    assert member.account(8) == Account(read_answer(answer), None, None)
    calls.begin(0, 11)
    assert member.account(11) is BEGUN


def test_a_worker_that_runs_one_task_at_a_time_has_no_calls(memory: bytearray) -> None:
    crew = crew_of(memory)
    member = crew.enlist("TASK-0", b"id", 0)
    assert not crew.is_concurrent("TASK-0")
    assert member.overdue_batches(2**63) is None
