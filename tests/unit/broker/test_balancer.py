from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.balancer import TakeBack, Unbegun, taken_back
from taskengine.broker.broker import Broker
from taskengine.broker.lane import tasks_in
from taskengine.broker.tuning import WORTH_NS
from taskengine.protocol.layouts import Format
from tests.packages import Plain, answers, package

LONG, SHORT = 5e6, 2e4


def test_half_is_taken_from_the_end() -> None:
    assert taken_back([Unbegun("busy", 1, 9, LONG)], 1) == [TakeBack("busy", 1, 5)]
    assert taken_back([Unbegun("busy", 1, 1, LONG)], 1) == [TakeBack("busy", 1, 1)]
    assert taken_back([Unbegun("busy", 1, 100, SHORT)], 1) == [TakeBack("busy", 1, 50)]


def test_each_idle_worker_gets_half_of_what_is_left() -> None:
    assert taken_back([Unbegun("busy", 1, 8, LONG)], 3) == [TakeBack("busy", 1, 7)]
    assert taken_back([Unbegun("busy", 1, 2, LONG)], 3) == [TakeBack("busy", 1, 2)]


def test_the_worker_with_the_most_work_ahead_gives_first() -> None:
    unbegun = [Unbegun("one", 1, 2, LONG), Unbegun("other", 1, 3, LONG)]
    assert taken_back(unbegun, 1) == [TakeBack("other", 1, 2)]
    assert sorted(taken_back(unbegun, 2)) == [TakeBack("one", 1, 1), TakeBack("other", 1, 2)]


def test_a_batch_that_waits_gives_before_the_one_that_runs() -> None:
    unbegun = [Unbegun("busy", 7, 4, LONG), Unbegun("busy", 8, 1, LONG)]
    assert taken_back(unbegun, 1) == [TakeBack("busy", 8, 1)]
    assert sorted(taken_back(unbegun, 2)) == [TakeBack("busy", 7, 2), TakeBack("busy", 8, 1)]
    waiting = [Unbegun("busy", 1, 10, SHORT), Unbegun("busy", 2, 50, SHORT)]
    assert taken_back(waiting, 1) == [TakeBack("busy", 2, 30)]


def test_work_that_is_not_worth_a_message_stays() -> None:
    assert taken_back([Unbegun("busy", 1, 10, SHORT)], 1) == []


def test_a_task_of_unknown_cost_is_worth_it() -> None:
    assert taken_back([Unbegun("busy", 1, 9, math.inf)], 1) == [TakeBack("busy", 1, 5)]


class Legacy(Plain):
    """A package of wire 0.1."""

    format = Format.LEGACY_JSON


@pytest.mark.parametrize(("wire", "taken"), [(Plain, 10), (Legacy, 12)])
def test_a_chunk_of_wire_0_1_is_taken_whole(wire: type[Plain], taken: int) -> None:
    """Each of its chunks has one DATA frame in the reply."""
    broker = Broker(6, {"": 2})
    broker.join("busy", "")
    broker.accept(package(1))
    broker.finish("busy", answers(broker.dispatch()[0]))
    made = wire((b"client",), "serial", [], ("k",), package(24).index, bytes(24))
    made.lanes = [("", 24)]
    broker.accept(made)
    [batch] = broker.dispatch()
    assert tasks_in(batch.slices) == 24
    broker.join("idle", "")
    [take] = broker.balancer.plan(broker.balancer.uneven(), lambda name, number: 20, 1e3)
    assert take == TakeBack("busy", batch.number, taken)


def legacy(tasks: int) -> Legacy:
    made = Legacy((b"client",), "serial", [], ("k",), package(tasks).index, bytes(tasks))
    made.lanes = [("", tasks)]
    return made


@pytest.mark.parametrize(("tasks", "taken"), [(5, 2), (7, 3)])
def test_a_worker_keeps_a_chunk_of_wire_0_1_where_it_has_begun_none(tasks: int, taken: int) -> None:
    broker = Broker(6, {"": 2})
    broker.join("busy", "")
    broker.accept(package(1))
    broker.finish("busy", answers(broker.dispatch()[0]))
    broker.accept(legacy(tasks))
    broker.dispatch()
    broker.join("idle", "")
    [take] = broker.balancer.plan(broker.balancer.uneven(), lambda name, number: tasks, 1e3)
    assert take.tasks == taken


def test_two_workers_do_not_give_one_chunk_of_wire_0_1_to_each_other() -> None:
    """They did without end where it took long to arrive."""
    broker = Broker(6, {"": 2})
    for worker in ("a", "b"):
        broker.join(worker, "")
    broker.accept(legacy(10))
    first, last = broker.dispatch()
    broker.finish(first.worker, answers(first))
    assert broker.balancer.uneven()
    assert broker.balancer.plan([""], lambda name, number: tasks_in(last.slices), 1e3) == []


@given(
    st.lists(
        st.builds(
            Unbegun,
            worker=st.sampled_from("abc"),
            number=st.integers(1, 2),
            tasks=st.integers(0, 50),
            task_ns=st.floats(1, 1e9),
        ),
        max_size=6,
        unique_by=lambda batch: (batch.worker, batch.number),
    ),
    st.integers(1, 5),
)
def test_no_more_is_taken_than_there_is_and_something_where_it_is_worth_it(unbegun: list[Unbegun], idle: int) -> None:
    takes = taken_back(unbegun, idle)
    there = {(batch.worker, batch.number): batch.tasks for batch in unbegun}
    assert all(0 < take.tasks <= there[take.worker, take.number] for take in takes)
    assert len({(take.worker, take.number) for take in takes}) == len(takes)
    if any(batch.tasks and batch.task_ns >= WORTH_NS for batch in unbegun):
        assert takes
