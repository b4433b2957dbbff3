from __future__ import annotations

import pytest

from taskengine._fastpath import Tally
from taskengine.broker.recovery import Account
from taskengine.broker.tuning import BATCH_NS
from taskengine.errors import Overloaded, TaskTimeout
from taskengine.protocol.layouts import LATENCY_BUCKETS, LATENCY_SHIFT
from taskengine.protocol.messages import LaneStats, Latency, Stats
from tests.brokers import broker, run_all
from tests.packages import answer, answers, package

FIRST_NS = 2**LATENCY_SHIFT


@pytest.mark.parametrize(
    ("ns", "bucket"),
    [
        (0, 0),
        (FIRST_NS - 1, 0),
        (FIRST_NS, 1),
        (2 * FIRST_NS - 1, 1),
        (2 * FIRST_NS, 2),
        (2 ** (LATENCY_SHIFT + LATENCY_BUCKETS - 2) - 1, LATENCY_BUCKETS - 2),
        (2 ** (LATENCY_SHIFT + LATENCY_BUCKETS - 2), LATENCY_BUCKETS - 1),
        (2**60, LATENCY_BUCKETS - 1),
    ],
)
def test_a_latency_is_counted_in_the_bucket_below_whose_bound_it_is(ns: int, bucket: int) -> None:
    made, waits = Tally(), package(3)
    made.accept(waits)
    made.tick(ns / 1e9)
    made.release(waits)
    (waiting, _), (running, _), (tasks, seconds) = made.stages()
    assert not [*waiting, *running]
    assert tasks == [0] * bucket + [3]
    assert seconds == pytest.approx(3 * ns / 1e9)


def test_a_package_on_its_way() -> None:
    made = broker(workers=1)
    first, second = package(10), package(20)
    for each in (first, second):
        made.accept(each)
    assert made.stats({}).lanes == [LaneStats("", 1, 1, 0, 30, 0)]
    made.counters.tick(5 * FIRST_NS / 1e9)
    (batch,) = made.dispatch()
    stats = made.stats({"task": 2})
    assert stats.lanes == [LaneStats("", 1, 1, 1, 20, 10)]
    assert (stats.accepted, stats.answered, stats.in_flight, stats.packages) == (30, 0, 30, 2)
    assert stats.bytes_in_flight == first.size + second.size
    assert stats.restarts == {"task": 2}
    made.counters.tick(9 * FIRST_NS / 1e9)
    assert made.finish(batch.worker, answers(batch, 3 * FIRST_NS)) == [first]
    stats = made.stats({})
    assert (stats.accepted, stats.answered, stats.in_flight, stats.packages) == (30, 10, 20, 1)
    assert stats.waiting == Latency([0, 0, 0, 10], 50 * FIRST_NS / 1e9)
    assert stats.running == Latency([0, 0, 10], 30 * FIRST_NS / 1e9)
    assert stats.total == Latency([0, 0, 0, 0, 10], 90 * FIRST_NS / 1e9)
    run_all(made)
    stats = made.stats({})
    assert (stats.answered, stats.in_flight, stats.packages, stats.bytes_in_flight) == (30, 0, 0, 0)


def test_errors_are_counted_by_type_and_those_of_workers_by_number() -> None:
    made = broker(workers=1)
    slow, hurried, sick = package(1), package(5), package(3)
    hurried.deadline = 1.0
    made.accept(slow)
    (batch,) = made.dispatch()
    made.accept(hurried)
    made.expire(1.0)
    assert made.stats({}).lanes[0].queued == 0
    made.finish(batch.worker, answers(batch))
    made.accept(sick)
    (batch,) = made.dispatch()
    job, first, stop, _, elapsed_ns, body = answer(batch.slices[0], 0, 3)
    made.finish(batch.worker, [(job, first, stop, 2, elapsed_ns, body)])
    assert made.stats({}).errors == {"TaskTimeout": 5, "failed": 2}
    assert _balance(made.stats({})) == 0


def test_what_a_dead_worker_ran_is_lost_or_run_again() -> None:
    made = broker(size=100, workers=2)
    plain, twice = package(10), package(10)
    twice.idempotent = True
    for each in (plain, twice):
        made.accept(each)
    for batch in made.dispatch():
        job = batch.slices[0].package.flight.job
        made.leave(batch.worker, [Account([answer(batch.slices[0], 0, 4)], None, (job, 4))])
    stats = made.stats({})
    assert stats.errors == {"WorkerLost": 1}
    assert (stats.retried, stats.answered, stats.in_flight) == (1, 9, 11)
    assert stats.lanes == [LaneStats("", 2, 0, 0, 11, 0)]


def test_the_engines_end_answers_all() -> None:
    made = broker(size=1, workers=1)
    made.accept(package(5))
    made.dispatch()
    made.abandon(Overloaded("the end", retry_after=None))
    assert (made.counters.answered, made.stats({}).errors) == (5, {"Overloaded": 5})


def test_a_condemned_worker_is_not_online_and_has_its_tasks_until_it_is_dead() -> None:
    made = broker(workers=2)
    made.accept(package(1))
    (batch,) = made.dispatch()
    made.workers.exclude(batch.worker)
    assert made.stats({}).lanes == [LaneStats("", 2, 1, 1, 0, 1)]
    made.leave(batch.worker, [None], lambda name: TaskTimeout(name))
    assert made.stats({}).lanes == [LaneStats("", 2, 1, 0, 1, 0)]


def test_a_heavy_task_is_in_a_high_bucket() -> None:
    made = broker(workers=1)
    made.accept(package(1))
    run_all(made, 2 * BATCH_NS)
    assert made.stats({}).running == Latency(
        [0] * ((2 * BATCH_NS) >> LATENCY_SHIFT).bit_length() + [1], 2 * BATCH_NS / 1e9
    )


def _balance(stats: Stats) -> int:
    return stats.accepted - stats.answered - stats.in_flight
