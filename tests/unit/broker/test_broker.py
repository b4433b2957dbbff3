from __future__ import annotations

import pytest

from taskengine.broker.broker import Broker
from taskengine.broker.package import Package
from taskengine.broker.quota import QuotaLimits
from taskengine.broker.topics import data_lane
from taskengine.broker.tuning import BATCH_NS, BATCH_SLICES
from taskengine.errors import Cancelled, NotAllowed, Overloaded, ProtocolError, TaskFailed
from taskengine.protocol.layouts import IN_FLIGHT, NO_DEADLINE
from taskengine.protocol.limits import DENIED_RUNS, DENIED_TASKS
from taskengine.protocol.messages import Priority
from tests.brokers import HEAVY_NS, broker, ended, run_all, tasks_of
from tests.packages import CHEAP_NS, answer, answers, package


def test_results_are_in_order_whatever_the_order_of_arrival() -> None:
    made = broker(workers=4)
    first = package(63)
    made.accept(first)
    whole: list[Package] = []
    while batches := made.dispatch():
        for batch in reversed(batches):
            whole += made.finish(batch.worker, answers(batch))
    assert whole == [first]
    assert first.results.join() == b"".join(b"<%d>" % position for position in range(63))
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
    assert [[(slice.first, slice.stop) for slice in batch.slices] for batch in batches] == [[(0, 2000)], [(2000, 4000)]]


def test_a_chunk_of_unknown_cost_travels_alone_and_nothing_waits_behind_it() -> None:
    made = broker()
    made.accept(package(100))
    assert [tasks_of(batch) for batch in made.dispatch()] == [10, 10]
    assert made.dispatch() == []


def test_a_cheap_chunk_shares_no_batch_with_a_heavy_one() -> None:
    made = broker(workers=1)
    for kind, cost in (("heavy", HEAVY_NS), ("cheap", CHEAP_NS)):
        made.accept(package(1, kind=kind))
        run_all(made, cost)
    for kind in ("cheap", "heavy"):
        made.accept(package(1, kind=kind))
    sent = [[slice.package.kind for slice in batch.slices] for _ in range(2) for batch in made.dispatch()]
    assert sent == [[("cheap",)], [("heavy",)]]


def test_a_task_alone_goes_to_the_least_loaded_worker_and_others_are_known_to_be_idle() -> None:
    made = broker(workers=2)
    for count in (1, 1):
        made.accept(package(count))
        made.workers.has_idle = False
        (batch,) = made.dispatch()
        assert (batch.tasks, len(batch.slices)) == (1, 1)
        assert made.workers.has_idle is (len({worker for worker in made.workers.values() if worker.batches}) < 2)
    assert all(len(worker.batches) == 1 for worker in made.workers.values())


def test_the_dispatch_after_an_answer_knows_what_its_tasks_cost() -> None:
    made = broker(workers=1)
    for known in (False, True):
        waits = package(1)
        made.accept(waits)
        (batch,) = made.dispatch()
        assert (batch.slices[0].cost == HEAVY_NS) is known
        assert made.finish(batch.worker, answers(batch, HEAVY_NS)) == [waits]


def test_chunks_are_spread_evenly_once_the_first_answer_tells_their_cost() -> None:
    made = broker()
    made.accept(package(63))
    first, second = made.dispatch()
    made.finish(second.worker, answers(second))
    rest = {batch.worker: tasks_of(batch) for batch in made.dispatch()}
    assert sum(rest.values()) == 47
    assert max(rest.values()) <= 32  # 4 of the 6 chunks, beside the one that the other has already
    assert set(rest) == {first.worker, second.worker}


def test_at_most_two_messages_wait_at_a_worker() -> None:
    made = broker(size=1, workers=1)
    made.accept(package(2))
    run_all(made, BATCH_NS)
    made.accept(package(20))
    sent = [batch for _ in range(5) for batch in made.dispatch()]
    assert len(sent) == IN_FLIGHT


def test_a_worker_that_joins_after_the_burst_gets_its_share() -> None:
    made = Broker(10, {"": 2})
    made.join("early", "")
    made.accept(package(1000))
    ran, joins = {"early": 0, "late": 0}, ["late"]
    while batches := made.dispatch():
        for batch in batches:
            ran[batch.worker] += tasks_of(batch)
            made.finish(batch.worker, answers(batch, BATCH_NS // 10))
        if joins and ran["early"] >= 100:
            made.join(joins.pop(), "")
    assert ran["late"] > 400


@pytest.mark.parametrize("clients", [(b"one", b"other"), (b"one", b"one")])
@pytest.mark.parametrize("known", [True, False])
def test_a_small_package_waits_for_no_second_heavy_chunk(clients: tuple[bytes, bytes], known: bool) -> None:
    made = broker()
    if known:
        made.accept(package(20, kind="tiny"))
        run_all(made)
    heavy, tiny = package(42, kind="heavy", client=clients[0]), package(4, kind="tiny", client=clients[1])
    made.accept(heavy)
    held = made.dispatch()
    made.accept(tiny)
    assert made.dispatch() == []
    order: list[Package] = []
    for batch in held:
        order += made.finish(batch.worker, answers(batch, HEAVY_NS))
    for batch in made.dispatch()[:2]:
        assert batch.slices[0].package is tiny
        order += made.finish(batch.worker, answers(batch))
    assert order == [tiny]


@pytest.mark.parametrize("client", [b"client", b"other"])
def test_packages_share_the_workers_by_the_work_they_bring(client: bytes) -> None:
    made = broker(size=10)
    costs = {"heavy": 10 * BATCH_NS, "cheap": BATCH_NS // 50}
    for kind, cost in costs.items():
        made.accept(package(20, kind=kind))
        run_all(made, cost)
    made.accept(package(1000, kind="heavy"))
    made.accept(package(100_000, kind="cheap", client=client))
    work = dict.fromkeys(costs, 0)
    while sum(work.values()) < 2000 * BATCH_NS:
        for batch in made.dispatch():
            (kind,) = batch.slices[0].package.kind
            work[kind] += costs[kind] * tasks_of(batch)
            made.finish(batch.worker, answers(batch, costs[kind]))
    assert 0.8 < work["cheap"] / work["heavy"] < 1.25


def test_what_is_handed_back_runs_elsewhere() -> None:
    made = broker(size=10)
    made.accept(package(20))
    run_all(made)
    second = package(400)
    made.accept(second)
    one, other = made.dispatch()
    assert one.slice_ns > 0
    ran = [(0, 10)]
    assert made.finish(one.worker, [answer(one.slices[0], 0, 10, HEAVY_NS)]) == []
    assert made.finish(other.worker, answers(other)) == []
    while batches := made.dispatch():
        for batch in batches:
            ran += [(slice.first, slice.stop) for slice in batch.slices]
            made.finish(batch.worker, answers(batch))
    assert made.idle()
    assert second.results.join() == b"".join(b"<%d>" % position for position in range(400))
    assert sorted(ran)[0] == (0, 10)


@pytest.mark.parametrize("priority", [Priority.LOW, Priority.NORMAL, Priority.HIGH])
def test_a_lane_with_one_worker_keeps_the_order_of_reception(priority: Priority) -> None:
    made = Broker(1, {"": 1, "arm": 1})
    made.join("w", "arm")
    packages = [package(3, lanes=[("arm", 3)]) for _ in range(3)]
    packages[1].priority = priority
    for one in packages:
        made.accept(one)
    ran: list[tuple[int, int]] = []
    while batches := made.dispatch():
        for batch in batches:
            assert batch.slice_ns == 0
            ran += [
                (slice.package.flight.job, task) for slice in batch.slices for task in range(slice.first, slice.stop)
            ]
            made.finish(batch.worker, answers(batch))
    assert ran == [(job, task) for job in (1, 2, 3) for task in range(3)]


def test_tasks_of_a_lane_never_run_elsewhere() -> None:
    made = broker(size=10, arm=1)
    made.join("a", "arm")
    mixed = package(30, lanes=[("", 10), ("arm", 5), ("", 15)])
    made.accept(mixed)
    where: dict[int, str] = {}
    while batches := made.dispatch():
        for batch in batches:
            for slice in batch.slices:
                where |= dict.fromkeys(range(slice.first, slice.stop), batch.worker)
            made.finish(batch.worker, answers(batch))
    assert {position for position, worker in where.items() if worker == "a"} == set(range(10, 15))
    assert mixed.results.join() == b"".join(b"<%d>" % position for position in range(30))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_urgent_has_batches_handed_back(workers: int) -> None:
    made = broker(workers=workers)
    slow = package(400)
    made.accept(slow)
    held = {batch.worker: batch for batch in made.dispatch()}
    assert made.recalls() == []
    urgent = package(1)
    urgent.priority = Priority.URGENT
    made.accept(urgent)
    second = made.dispatch()
    assert second == []
    recalls = made.recalls()
    assert sorted(recalls) == sorted((worker, batch.number) for worker, batch in held.items())
    assert made.recalls() == []
    first = held["w0"].slices[0]
    assert made.finish("w0", [answer(first, first.first, first.first + 3)]) == []
    for name in held.keys() - {"w0"}:
        assert made.finish(name, []) == []
    batch = made.dispatch()[0]
    assert batch.slices[0].package is urgent
    assert made.finish(batch.worker, [answer(batch.slices[0], 0, 1)]) == [urgent]
    for name in held:
        for _ in made.workers.held(name):
            assert made.finish(name, []) == []
    assert run_all(made) == [slow]
    assert slow.results.join() == ended(*[""] * 400)


def test_what_is_urgent_recalls_nothing_urgent() -> None:
    made = broker(workers=1)
    for _ in range(2):
        urgent = package(1)
        urgent.priority = Priority.URGENT
        made.accept(urgent)
        made.dispatch()
    assert made.recalls() == []


def test_urgent_goes_before_everything_queued() -> None:
    made = broker(size=1, workers=1)
    slow, urgent = package(5), package(1)
    urgent.priority = Priority.URGENT
    made.accept(slow)
    made.accept(urgent)
    assert made.dispatch()[0].slices[0].package is urgent


def test_batches_are_numbered_one_by_one_and_no_worker_has_another_s_numbers() -> None:
    made = Broker(10, {"": 2}, epoch=7)
    made.join("a", "")
    made.join("b", "")
    for _ in range(4):
        made.accept(package(40))
    numbers: dict[str, list[int]] = {"a": [], "b": []}
    while batches := made.dispatch():
        for batch in batches:
            numbers[batch.worker].append(batch.number)
            made.finish(batch.worker, answers(batch))
    for worker, epoch in (("a", 7), ("b", 8)):
        assert numbers[worker] == [(epoch << 32) + n for n in range(len(numbers[worker]))]


def test_a_package_past_its_deadline_never_starts() -> None:
    made = Broker(10, {"": 2})
    late, patient = package(25), package(5)
    late.deadline = 10.0
    made.accept(late)
    made.accept(patient)
    assert made.expire(9.9) == []
    assert made.expire(10.0) == [late]
    assert late.results.join().count(b"TaskTimeout") == 25
    assert late.deadline != NO_DEADLINE
    made.join("w", "")
    assert run_all(made) == [patient]


def test_what_is_handed_back_past_its_deadline_never_starts() -> None:
    made = broker(workers=1)
    late = package(10)
    late.deadline = 10.0
    made.accept(late)
    (batch,) = made.dispatch()
    assert made.expire(10.0) == []
    assert made.expire(11.0) == []
    assert made.finish(batch.worker, [answer(batch.slices[0], 0, 4)]) == [late]
    assert late.results.join().count(b"TaskTimeout") == 6
    assert made.dispatch() == []


def test_a_batch_that_ran_and_cannot_be_answered_is_given_up() -> None:
    made = broker(workers=1)
    first = package(10)
    made.accept(first)
    (batch,) = made.dispatch()
    assert made.give_up(batch.worker, TaskFailed("too large")) == [first]
    assert first.results.join().count(b"TaskFailed") == 10
    with pytest.raises(ProtocolError, match="not given"):
        made.give_up(batch.worker, TaskFailed("too large"))
    made.accept(package(10))
    assert len(run_all(made)) == 1


def test_a_package_of_alternating_lanes_costs_each_slice_once() -> None:
    made = broker(size=1, arm=1)
    made.join("arm", "arm")
    lanes = [("", 1), ("arm", 1)] * 20_000
    made.accept(package(40_000, lanes=lanes))
    batches = 0
    while dispatched := made.dispatch():
        for batch in dispatched:
            assert len(batch.slices) <= BATCH_SLICES
            batches += 1
            made.finish(batch.worker, answers(batch))
    assert made.idle()
    assert batches < 2000


def test_stopping_refuses_and_abandons() -> None:
    made = broker()
    first = package(40)
    made.accept(first)
    made.dispatch()
    made.stopping = True
    with pytest.raises(Overloaded, match="stopping"):
        made.accept(package(1))
    assert made.abandon(Cancelled("stopped")) == [first]
    assert first.results.join().count(b"Cancelled") == 40
    assert made.idle()


def test_a_lane_without_workers_is_refused_and_a_stranger_may_not_join() -> None:
    made = broker()
    with pytest.raises(Overloaded, match="lane 'legs'"):
        made.accept(package(1, lanes=[("legs", 1)]))
    with pytest.raises(ProtocolError, match="not configured"):
        made.join("x", "legs")
    with pytest.raises(ProtocolError, match="joined already"):
        made.join("w0", "")


def test_a_package_of_many_lanes_takes_more_room() -> None:
    made = Broker(10, {"": 1, "arm": 1}, limits=QuotaLimits(10**6, 2**20, 10**6, 2**30))
    made.accept(package(2000))
    with pytest.raises(Overloaded, match="CLIENT_BYTES"):
        made.accept(package(2000, lanes=[("", 1), ("arm", 1)] * 1000))


def test_too_much_in_flight_is_refused_until_something_has_ended() -> None:
    made = Broker(10, {"": 1}, limits=QuotaLimits(10, 2**30, 20, 2**30))
    made.join("w0", "")
    first = package(10)
    made.accept(first)
    with pytest.raises(Overloaded) as caught:
        made.accept(package(1))
    assert caught.value.retry_after > 0
    made.accept(package(5, client=b"other"))
    assert first in run_all(made)
    made.accept(package(10))
    assert len(run_all(made)) == 1


def test_results_that_nobody_has_room_for_become_errors() -> None:
    made = Broker(10, {"": 1}, limits=QuotaLimits(100, 2**30, 100, 2**20))
    made.join("w0", "")
    greedy = package(2)
    made.accept(greedy)
    (batch,) = made.dispatch()
    job = greedy.flight.job
    huge = [(job, 0, 1, 0, 1, bytes(2**19)), (job, 1, 2, 0, 1, bytes(2**20))]
    assert made.finish(batch.worker, huge) == [greedy]
    assert greedy.results.join() == bytes(2**19) + b"<1 TaskFailed>"
    assert greedy.results.failed == 1
    made.accept(package(2))
    assert len(run_all(made)) == 1


def test_a_retired_worker_hands_back_what_it_has_and_gets_nothing_more() -> None:
    made = broker(size=100, workers=2)
    first = package(200)
    made.accept(first)
    held = {batch.worker: batch for batch in made.dispatch()}
    made.workers.retire("w0")
    made.workers.retire("nobody")
    assert made.recalls() == [("w0", held["w0"].number)]
    assert not made.workers.is_free("w0")
    part = held["w0"].slices[0]
    assert made.finish("w0", [answer(part, part.first, part.first + 1)]) == []
    assert made.workers.is_free("w0")
    assert not made.workers.is_free("nobody")
    assert made.finish("w1", answers(held["w1"])) == []
    while batches := made.dispatch():
        assert {batch.worker for batch in batches} == {"w1"}
        for batch in batches:
            made.finish("w1", answers(batch))
    assert first.results.missing == 0


def test_what_waits_for_workers_that_will_not_come_is_refused() -> None:
    made = broker(workers=1, arm=2)
    waiting, running = package(4, lanes=[("arm", 4)]), package(3)
    for each in (waiting, running):
        made.accept(each)
    (batch,) = made.dispatch()
    made.stopping = True
    assert made.refuse_unserved() == [waiting]
    assert waiting.results.join() == ended(*["Overloaded"] * 4)
    assert made.leave(batch.worker, [None]) == []
    assert made.refuse_unserved() == [running]
    assert made.idle()


def test_deadlines_that_are_over_are_forgotten() -> None:
    made = broker()
    for number in range(1000):
        late = package(1)
        late.deadline = 1e6 + number
        made.accept(late)
        if number:
            run_all(made)
    assert len(made.withdrawals.deadlines) < 200
    run_all(made)
    assert not made.withdrawals.is_timed


def test_what_is_denied_is_answered_alone_and_at_once() -> None:
    made = broker(size=10)
    mixed = package(30, lanes=[("", 10), ("denied:gpio.write", 10), ("", 10)])
    assert made.accept(mixed) is False
    assert run_all(made) == [mixed]
    assert mixed.results.join() == ended(*[""] * 10, *["NotAllowed"] * 10, *[""] * 10)
    nothing = package(5, lanes=[("denied:gpio.write", 5)])
    assert made.accept(nothing) is True
    assert nothing.results.join() == ended(*["NotAllowed"] * 5)
    assert made.idle()
    stats = made.stats({})
    assert stats.accepted == stats.answered == 35


@pytest.mark.parametrize("lanes", [[("denied:x", DENIED_TASKS + 1)], [("", 1), ("denied:x", 1)] * (DENIED_RUNS + 1)])
def test_what_is_denied_in_plenty_is_refused_whole(lanes: list[tuple[str, int]]) -> None:
    made = broker()
    with pytest.raises(NotAllowed, match="of this package"):
        made.accept(package(sum(tasks for _, tasks in lanes), lanes=lanes))
    assert made.idle()
    assert made.stats({}).accepted == 0


def test_a_data_worker_serves_clients_in_turns_and_each_in_its_order() -> None:
    """A client that asked for a large value again and again delayed everybody's publications."""
    lane = data_lane(0)
    made = Broker(None, {lane: 1})
    made.join("d", lane)
    sent = [package(1, lanes=[(lane, 1)], client=client) for client in [b"greedy"] * 50 + [b"modest"] * 2]
    for each in sent:
        made.accept(each)
    order = [done.flight.job - sent[0].flight.job for done in run_all(made, ns_a_task=10**8)]
    assert order[:50] != list(range(50))
    assert order.index(50) < order.index(51) < 10
    assert [job for job in order if job < 50] == list(range(50))
