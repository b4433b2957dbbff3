from __future__ import annotations

from taskengine.broker.chunking import Run, cut
from taskengine.broker.lane import BatchBuilder, Lane, LaneWorker, Slice
from taskengine.broker.lane_queue import Span
from taskengine.broker.package import Package
from taskengine.broker.tuning import BATCH_NS, BATCH_SLICES
from taskengine.protocol.layouts import IN_FLIGHT
from taskengine.protocol.messages import Priority
from tests.packages import package


def slices(priority: Priority = Priority.NORMAL, cost: float = 0.0) -> list[Slice]:
    made = package(1)
    made.priority = priority
    return [Slice(made, Run("", 0, 1, 1, cut(1, None, 1)), 0, 1, cost)]


def span(tasks: int, chunk: int = 1) -> Span:
    made: Package = package(tasks)
    made.cut(chunk, {"": 1})
    return Span(made, made.flight.chunks.runs[0], 0, tasks)


def test_a_worker_takes_so_many_batches_and_so_much_work() -> None:
    worker = LaneWorker("w", "", 1)
    assert worker.room()
    worker.batches.append(slices(cost=2 * BATCH_NS))
    worker.weigh()
    assert not worker.room(), "what it has is long enough"
    worker.load = 0.0
    assert worker.room()
    worker.batches.extend([slices()] * (IN_FLIGHT - 1))
    assert not worker.room()
    worker.end(None, 0.0)
    assert (worker.first, worker.load) == (2, 0.0)
    worker.is_excluded = True
    worker.batches.clear()
    assert not worker.room()


def test_a_worker_is_asked_for_what_is_not_urgent_once() -> None:
    worker = LaneWorker("w", "", 5)
    assert not worker.has_patient_work()
    worker.batches.append(slices())
    assert worker.has_patient_work()
    assert worker.recall() == 5
    assert worker.is_handing_back()
    assert not worker.has_patient_work()
    worker.batches.append(slices(Priority.URGENT))
    assert not worker.has_patient_work()
    worker.end(None, 0.0)
    assert not worker.is_handing_back()


def test_what_waits_alone_goes_first_until_somebody_comes() -> None:
    lane = Lane(2)
    first, second = span(3), span(2)
    lane.add(first)
    assert lane.next() is first
    assert not lane.crowded(first)
    lane.add(second)
    assert lane.queued == 5
    assert lane.next() is first
    assert lane.revoke({first.package}) == [first]
    assert (lane.queued, lane.next()) == (2, second)
    assert lane.clear() == [second]
    assert lane.next() is None


def test_each_that_comes_when_nothing_waits_waits_alone() -> None:
    lane = Lane(2)
    for _ in range(3):
        alone = span(1)
        lane.add(alone)
        assert lane.next() is alone
        assert not any(line.waiting for line in lane.lines)
        alone.first = alone.stop  # handed out


def test_light_chunks_are_spread_until_a_batch_is_full() -> None:
    workers = [LaneWorker("a", "", 1), LaneWorker("b", "", 1)]
    builder = BatchBuilder(list(workers))
    waiting = span(100)
    assert builder.give_many(waiting, 10, BATCH_NS / 10) == 10
    assert {worker.name: sum(one.stop - one.first for one in builder.slices[worker]) for worker in workers} == {
        "a": 5,
        "b": 5,
    }
    assert builder.give_many(waiting, 50, BATCH_NS / 10) == 10
    assert builder.free == []


def test_a_heavy_chunk_waits_behind_nothing() -> None:
    builder = BatchBuilder([LaneWorker("a", "", 1)])
    waiting = span(3)
    assert builder.give_one(waiting, 1.0) == 1
    assert builder.give_one(waiting, 1.0) == 0
    assert builder.free == []


def test_a_batch_has_so_many_slices() -> None:
    worker = LaneWorker("a", "", 1)
    builder = BatchBuilder([worker])
    for _ in range(BATCH_SLICES):
        assert worker in builder.free
        builder.give(worker, span(1), 1, 0.0)
    assert builder.free == []
