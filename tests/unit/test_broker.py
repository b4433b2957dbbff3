from __future__ import annotations

import pytest

from taskengine.broker import Answered, Batch, Broker
from taskengine.errors import Cancelled, Overloaded, ProtocolError, TaskEngineError
from taskengine.package import Package
from taskengine.wire import BATCH_NS, IN_FLIGHT, NO_DEADLINE

CHEAP_NS = 100
HEAVY_NS = 100 * BATCH_NS


class Plain(Package):
    """A package whose results are bytes that name the tasks."""

    def errors(self, first: int, stop: int, error: TaskEngineError) -> bytes:
        return b"".join(b"<%d %s>" % (position, type(error).__name__.encode()) for position in range(first, stop))


def package(tasks: int, *, kind: bytes = b"k", lanes: list[tuple[str, int]] | None = None) -> Plain:
    index = b"".join(end.to_bytes(4, "little") for end in range(1, tasks + 1))
    made = Plain((b"client",), "serial", [], index, bytes(tasks))
    made.kind = kind
    made.lanes = [("", tasks)] if lanes is None else lanes
    return made


def answers(batch: Batch, ns_a_task: int = CHEAP_NS) -> list[Answered]:
    return [
        (
            chunk.package.job,
            chunk.part,
            0,
            ns_a_task * (chunk.stop - chunk.first),
            b"".join(b"<%d>" % position for position in range(chunk.first, chunk.stop)),
        )
        for chunk in batch.chunks
    ]


def broker(size: int | None = 10, workers: int = 2, **lanes: int) -> Broker:
    made = Broker(size, {"": workers, **lanes})
    for number in range(workers):
        made.join(f"w{number}", "")
    return made


def run_all(made: Broker, ns_a_task: int = CHEAP_NS) -> list[Package]:
    whole: list[Package] = []
    while batches := made.dispatch():
        for batch in batches:
            whole += made.finish(batch.worker, answers(batch, ns_a_task))
    return whole


def test_results_are_in_order_whatever_the_order_of_arrival() -> None:
    made = broker(workers=4)
    first = package(63)
    made.accept(first)
    whole: list[Package] = []
    while batches := made.dispatch():
        for batch in reversed(batches):
            whole += made.finish(batch.worker, answers(batch))
    assert whole == [first]
    assert first.assembly.join() == b"".join(b"<%d>" % position for position in range(63))
    assert made.idle()


def test_an_empty_package_is_whole_at_once() -> None:
    made = broker()
    assert made.accept(package(0)) is True
    assert made.idle()


def test_cheap_chunks_travel_together_once_their_cost_is_known() -> None:
    made = broker(size=50)
    made.accept(package(100))
    run_all(made)
    made.accept(package(4000))
    batches = made.dispatch()
    assert sorted(len(batch.chunks) for batch in batches) == [40, 40]


def test_a_chunk_of_unknown_cost_travels_alone_and_nothing_waits_behind_it() -> None:
    made = broker()
    made.accept(package(100))
    assert [len(batch.chunks) for batch in made.dispatch()] == [1, 1]
    assert made.dispatch() == []


def test_a_cheap_chunk_shares_no_batch_with_a_heavy_one() -> None:
    made = broker(workers=1)
    for kind, cost in ((b"heavy", HEAVY_NS), (b"cheap", CHEAP_NS)):
        made.accept(package(1, kind=kind))
        run_all(made, cost)
    for kind in (b"cheap", b"heavy"):
        made.accept(package(1, kind=kind))
    sent = [[chunk.package.kind for chunk in batch.chunks] for _ in range(2) for batch in made.dispatch()]
    assert sent == [[b"cheap"], [b"heavy"]]


def test_chunks_are_spread_evenly_once_the_first_answer_tells_their_cost() -> None:
    made = broker()
    made.accept(package(63))
    first, second = made.dispatch()
    made.finish(second.worker, answers(second))
    rest = {batch.worker: len(batch.chunks) for batch in made.dispatch()}
    assert sorted(rest.values()) == [3, 3]
    assert set(rest) == {first.worker, second.worker}


def test_at_most_two_messages_wait_at_a_worker() -> None:
    made = broker(size=1, workers=1)
    made.accept(package(2))
    run_all(made, BATCH_NS)
    made.accept(package(20))
    sent = [batch for _ in range(5) for batch in made.dispatch()]
    assert len(sent) == IN_FLIGHT


def test_a_small_package_overtakes_a_heavy_one() -> None:
    made = broker()
    heavy, tiny = package(42, kind=b"heavy"), package(4, kind=b"tiny")
    made.accept(heavy)
    held = made.dispatch()
    made.accept(tiny)
    order: list[Package] = []
    while held:
        for batch in held:
            order += made.finish(batch.worker, answers(batch, HEAVY_NS))
        held = made.dispatch()
    assert order == [tiny, heavy]


def test_a_lane_with_one_worker_keeps_the_order_of_reception() -> None:
    made = Broker(1, {"": 1, "arm": 1})
    made.join("w", "arm")
    packages = [package(3, lanes=[("arm", 3)]) for _ in range(3)]
    for one in packages:
        made.accept(one)
    ran: list[tuple[int, int]] = []
    while batches := made.dispatch():
        for batch in batches:
            ran += [(chunk.package.job, chunk.part) for chunk in batch.chunks]
            made.finish(batch.worker, answers(batch))
    assert ran == [(job, part) for job in (1, 2, 3) for part in (1, 2, 3)]


def test_tasks_of_a_lane_never_run_elsewhere() -> None:
    made = broker(size=10, arm=1)
    made.join("a", "arm")
    mixed = package(30, lanes=[("", 10), ("arm", 5), ("", 15)])
    made.accept(mixed)
    where: dict[int, str] = {}
    while batches := made.dispatch():
        for batch in batches:
            for chunk in batch.chunks:
                where |= dict.fromkeys(range(chunk.first, chunk.stop), batch.worker)
            made.finish(batch.worker, answers(batch))
    assert {position for position, worker in where.items() if worker == "a"} == set(range(10, 15))
    assert mixed.assembly.join() == b"".join(b"<%d>" % position for position in range(30))


def test_urgent_goes_before_everything_queued() -> None:
    made = broker(size=1, workers=1)
    slow, urgent = package(5), package(1)
    urgent.priority = 3
    made.accept(slow)
    made.accept(urgent)
    assert made.dispatch()[0].chunks[0].package is urgent


def test_what_a_dead_worker_held_is_answered_and_the_rest_runs() -> None:
    made = broker()
    first = package(40)
    made.accept(first)
    dead, alive = made.dispatch()
    assert made.leave(dead.worker) == []
    made.finish(alive.worker, answers(alive))
    assert run_all(made) == [first]
    lost = [position for chunk in dead.chunks for position in range(chunk.first, chunk.stop)]
    assert first.assembly.join().count(b"WorkerLost") == len(lost)
    assert made.leave(dead.worker) == []


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    made = broker()
    with pytest.raises(ProtocolError, match="nobody asked"):
        made.finish("w0", [])
    made.accept(package(5))
    batch = made.dispatch()[0]
    with pytest.raises(ProtocolError, match="other chunks"):
        made.finish(batch.worker, [(batch.chunks[0].package.job, 99, 0, 0, b"")])


def test_a_package_past_its_deadline_never_starts() -> None:
    made = Broker(10, {"": 2})
    late, patient = package(25), package(5)
    late.deadline = 10.0
    made.accept(late)
    made.accept(patient)
    assert made.expire(9.9) == []
    assert made.expire(10.0) == [late]
    assert late.assembly.join().count(b"TaskTimeout") == 25
    assert late.deadline != NO_DEADLINE
    made.join("w", "")
    assert run_all(made) == [patient]


def test_stopping_refuses_and_abandons() -> None:
    made = broker()
    first = package(40)
    made.accept(first)
    made.dispatch()
    made.stopping = True
    with pytest.raises(Overloaded, match="stopping"):
        made.accept(package(1))
    assert made.abandon(Cancelled("stopped")) == [first]
    assert first.assembly.join().count(b"Cancelled") == 40
    assert made.idle()


def test_a_lane_without_workers_is_refused_and_a_stranger_may_not_join() -> None:
    made = broker()
    with pytest.raises(Overloaded, match="lane 'legs'"):
        made.accept(package(1, lanes=[("legs", 1)]))
    with pytest.raises(ProtocolError, match="not configured"):
        made.join("x", "legs")
    with pytest.raises(ProtocolError, match="joined already"):
        made.join("w0", "")
