from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from taskengine.broker import Broker
from taskengine.errors import Cancelled, NotAllowed, Overloaded, ProtocolError, TaskEngineError, TaskFailed, TaskTimeout
from taskengine.lane import Batch
from taskengine.messages import Priority
from taskengine.package import Package
from taskengine.quota import Limits
from taskengine.salvage import SENSELESS, Account
from taskengine.topics import data_lane
from taskengine.wire import BATCH_NS, BATCH_SLICES, DEATHS, DENIED_RUNS, DENIED_TASKS, IN_FLIGHT, MAX_RUNS, NO_DEADLINE
from tests.packages import CHEAP_NS, answer, answers, package

HEAVY_NS = 100 * BATCH_NS


def tasks_of(batch: Batch) -> int:
    return sum(slice.stop - slice.first for slice in batch.slices)


def broker(size: int | None = 10, workers: int = 2, **lanes: int) -> Broker:
    made = Broker(size, {"": workers, **lanes})
    for number in range(workers):
        made.join(f"w{number}", "")
    return made


def run_all(made: Broker, ns_a_task: int = CHEAP_NS) -> list[Package]:
    whole = made.revoke()
    while batches := made.dispatch():
        for batch in batches:
            whole += made.finish(batch.worker, answers(batch, ns_a_task))
        whole += made.revoke()
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
    assert second.assembly.join() == b"".join(b"<%d>" % position for position in range(400))
    assert sorted(ran)[0] == (0, 10)


@pytest.mark.parametrize("priority", [Priority.LOW, Priority.NORMAL, Priority.HIGH])
def test_a_lane_with_one_worker_keeps_the_order_of_reception(priority: int) -> None:
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
            ran += [(slice.package.job, task) for slice in batch.slices for task in range(slice.first, slice.stop)]
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
    assert mixed.assembly.join() == b"".join(b"<%d>" % position for position in range(30))


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
        for _ in made.held(name):
            assert made.finish(name, []) == []
    assert run_all(made) == [slow]
    assert slow.assembly.join() == ended(*[""] * 400)


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
    urgent.priority = 3
    made.accept(slow)
    made.accept(urgent)
    assert made.dispatch()[0].slices[0].package is urgent


def ended(*results: str) -> bytes:
    return b"".join(
        b"<%d%b>" % (position, f" {kind}".encode() if kind else b"") for position, kind in enumerate(results)
    )


def test_what_a_dead_worker_had_done_is_kept_and_what_it_had_not_begun_runs_elsewhere() -> None:
    made = broker()
    first = package(40)
    made.accept(first)
    dead, alive = made.dispatch()
    (slice,) = dead.slices
    done = answer(slice, slice.first, slice.first + 4)
    assert made.leave(dead.worker, [([], done, (first.job, slice.first + 4))]) == []
    made.finish(alive.worker, answers(alive))
    assert run_all(made) == [first]
    kinds = ["WorkerLost" if position == slice.first + 4 else "" for position in range(40)]
    assert first.assembly.join() == ended(*kinds)
    assert first.failed == 1
    assert made.leave(dead.worker, []) == []


def test_a_batch_that_was_not_begun_runs_elsewhere_in_its_place() -> None:
    made = broker(workers=1)
    run_all(made)
    first = package(20)
    made.accept(first)
    (batch,) = made.dispatch()
    assert list(made.held(batch.worker)) == [batch.number]
    assert made.leave(batch.worker, [None]) == []
    made.join("w9", "")
    assert run_all(made) == [first]
    assert first.assembly.join() == ended(*[""] * 20)


def test_a_chunk_whose_workers_died_twice_before_it_began_is_lost_and_its_neighbours_run() -> None:
    """What kills whoever is about to read it went from worker to worker for ever."""
    made = broker(workers=1)
    run_all(made)
    first, other = package(20), package(3)
    made.accept(first)
    made.accept(other)
    for life in range(DEATHS):
        [batch, *_] = made.dispatch()
        assert batch.slices[0].first == 0
        assert made.leave(batch.worker, [None] * len(made.held(batch.worker))) == []
        made.join(f"next{life}", "")
    assert set(run_all(made)) == {first, other}
    assert first.assembly.join() == ended(*["WorkerLost"] * 10, *[""] * 10)
    assert other.assembly.join() == ended("", "", "")


@pytest.mark.parametrize("how", ["a reload", "another connection", "a task that ran"])
def test_a_chunk_is_blamed_for_no_other_death(how: str) -> None:
    made = broker(workers=1)
    run_all(made)
    first = package(10)
    made.accept(first)
    for life in range(4):
        [batch, *_] = made.dispatch()
        head = batch.slices[0]
        account: Account | None = ([], None, (first.job, head.first)) if how == "a task that ran" else None
        if how == "a reload":
            made.retire(batch.worker)
        assert made.leave(batch.worker, [account], is_dead=how != "another connection") == []
        made.join(f"next{life}", "")
    assert run_all(made) == [first]
    lost = 4 if how == "a task that ran" else 0
    assert first.assembly.join() == ended(*["WorkerLost"] * lost, *[""] * (10 - lost))


@pytest.mark.parametrize("marked", ["package", "task"])
def test_an_idempotent_task_is_given_to_one_other_at_most(marked: str) -> None:
    made = Broker(10, {"": 1}, {"again"} if marked == "task" else ())
    first = package(3)
    first.idempotent = marked == "package"
    first.name = "again"
    made.accept(first)
    for life in range(DEATHS):
        assert not first.assembly.held
        made.join(f"w{life}", "")
        (batch,) = made.dispatch()
        assert (batch.slices[0].first, batch.slices[0].stop) == (0, 3)
        assert made.leave(f"w{life}", [([], None, (first.job, 0))]) == []
    made.join("w3", "")
    assert run_all(made) == [first]
    assert first.assembly.join() == ended("WorkerLost", "", "")


def test_a_task_that_ran_out_of_time_is_not_repeated() -> None:
    made = Broker(10, {"": 1}, {"again"})
    first = package(2)
    first.name = "again"
    made.accept(first)
    made.join("w", "")
    made.dispatch()
    seen: list[str] = []

    def too_long(name: str) -> TaskEngineError:
        seen.append(name)
        return TaskTimeout("too long")

    made.leave("w", [([], None, (first.job, 0))], too_long)
    made.join("x", "")
    assert run_all(made) == [first]
    assert first.assembly.join() == ended("TaskTimeout", "")
    assert seen == ["again"]


@pytest.mark.parametrize("account", [SENSELESS, ([(99, 0, 1, 0, 0, b"")], None, None)])
def test_whose_account_has_no_sense_may_have_run_anything(account: Account) -> None:
    made = broker(workers=1)
    first = package(10)
    made.accept(first)
    (batch,) = made.dispatch()
    assert made.leave(batch.worker, [account]) == [first]
    assert first.assembly.join() == ended(*["WorkerLost"] * 10)


def test_who_is_condemned_gets_nothing_more() -> None:
    made = broker(workers=2)
    made.condemn("w0")
    made.condemn("nobody")
    made.accept(package(40))
    assert {batch.worker for batch in made.dispatch()} == {"w1"}


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


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    made = broker()
    with pytest.raises(ProtocolError, match="nobody asked"):
        made.finish("w0", [])
    made.accept(package(5))
    batch = made.dispatch()[0]
    slice = batch.slices[0]
    whole, job = (slice.first, slice.stop), slice.package.job
    wrong: list[list[tuple[int, int, int]]] = [
        [(job + 1, *whole)],
        [(job, 1, 3)],
        [(job, 0, 0)],
        [(job, 0, 9)],
        [(job, *whole), (job, *whole)],
        [(job, 0, 1), (job, 2, 3)],
    ]
    for entries in wrong:
        with pytest.raises(ProtocolError, match="other tasks"):
            made.finish(batch.worker, [(*entry, 0, 0, b"") for entry in entries])
    made.finish(batch.worker, answers(batch))


def test_an_answer_may_come_in_pieces() -> None:
    made = broker(workers=1)
    made.accept(package(5))
    (batch,) = made.dispatch()
    pieces = [answer(batch.slices[0], 0, 2), answer(batch.slices[0], 2, 5)]
    assert [one.assembly.join() for one in made.finish(batch.worker, pieces)] == [b"<0><1><2><3><4>"]


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


def test_what_is_handed_back_past_its_deadline_never_starts() -> None:
    made = broker(workers=1)
    late = package(10)
    late.deadline = 10.0
    made.accept(late)
    (batch,) = made.dispatch()
    assert made.expire(10.0) == []
    assert made.expire(11.0) == []
    assert made.finish(batch.worker, [answer(batch.slices[0], 0, 4)]) == [late]
    assert late.assembly.join().count(b"TaskTimeout") == 6
    assert made.dispatch() == []


def test_a_batch_that_ran_and_cannot_be_answered_is_given_up() -> None:
    made = broker(workers=1)
    first = package(10)
    made.accept(first)
    (batch,) = made.dispatch()
    assert made.give_up(batch.worker, TaskFailed("too large")) == [first]
    assert first.assembly.join().count(b"TaskFailed") == 10
    with pytest.raises(ProtocolError, match="nobody asked"):
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


def test_what_is_cancelled_and_waits_never_starts() -> None:
    made = broker(size=1, workers=1)
    running, unwanted = package(1), package(5)
    unwanted.serial = "other"
    made.accept(running)
    (batch,) = made.dispatch()
    made.accept(unwanted)
    made.cancel(b"stranger", "other")
    made.cancel(b"client", "unknown")
    assert made.revoke() == []
    made.cancel(b"client", "other")
    assert made.revoke() == [unwanted]
    assert unwanted.assembly.join() == ended(*["Cancelled"] * 5)
    assert made.recalls() == []
    assert made.finish(batch.worker, answers(batch)) == [running]
    assert made.dispatch() == []
    assert made.idle()


def test_single_tasks_are_cancelled_and_the_rest_runs() -> None:
    made = broker(workers=1)
    slow, mixed = package(1), package(30)
    mixed.serial = "mixed"
    made.accept(slow)
    (batch,) = made.dispatch()
    made.accept(mixed)
    made.cancel(b"client", "mixed", [29, 0, 7, 7, 31, -4, 2**70])
    assert made.revoke() == []
    assert made.finish(batch.worker, answers(batch)) == [slow]
    assert run_all(made) == [mixed]
    kinds = ["Cancelled" if position in (0, 7, 29) else "" for position in range(30)]
    assert mixed.assembly.join() == ended(*kinds)
    assert made.idle()


def test_what_a_worker_has_and_has_not_begun_is_recalled_and_cancelled() -> None:
    made = broker(size=100, workers=1)
    unwanted, other = package(100), package(10, client=b"other")
    made.accept(unwanted)
    (batch,) = made.dispatch()
    made.accept(other)
    made.cancel(b"client", "serial", [1, 50, 51])
    assert made.revoke() == []
    assert made.recalls() == [(batch.worker, batch.number)]
    assert made.recalls() == []
    # 0 to 10 had run when the worker looked up
    assert made.finish(batch.worker, [answer(batch.slices[0], 0, 10)]) == []
    whole = run_all(made)
    assert set(whole) == {unwanted, other}
    kinds = ["Cancelled" if position in (50, 51) else "" for position in range(100)]
    assert unwanted.assembly.join() == ended(*kinds)


def test_a_client_cancels_all_that_it_has_in_flight() -> None:
    made = broker(size=1, workers=1)
    mine, others = [package(3), package(4)], package(2, client=b"other")
    mine[1].serial = "second"
    for each in (*mine, others):
        made.accept(each)
    (batch,) = made.dispatch()
    made.cancel(b"client")
    assert made.revoke() == [mine[1]]
    assert made.recalls() == [(batch.worker, batch.number)]
    assert set(run_all(made)) | set(made.finish(batch.worker, answers(batch))) >= {mine[0]}
    assert run_all(made) == [others]
    assert mine[0].assembly.join() == ended("", "Cancelled", "Cancelled")


def test_what_was_cancelled_is_not_run_again_when_its_worker_dies() -> None:
    made = broker(size=100, workers=1)
    unwanted = package(10)
    unwanted.idempotent = True
    made.accept(unwanted)
    (batch,) = made.dispatch()
    made.cancel(b"client", "serial")
    made.revoke()
    done = [answer(batch.slices[0], 0, 4)]
    assert made.leave(batch.worker, [(done, None, (unwanted.job, 4))]) == [unwanted]
    assert unwanted.assembly.join() == ended(*[""] * 4, *["Cancelled"] * 6)


def test_what_is_accepted_after_all_was_cancelled_runs() -> None:
    made = broker(size=1, workers=1)
    before, after = package(3), package(4)
    after.serial = "after"
    made.accept(before)
    made.cancel(b"client")
    made.accept(after)
    assert made.revoke() == [before]
    assert run_all(made) == [after]
    assert after.assembly.join() == ended("", "", "", "")


def test_a_package_is_answered_when_nothing_but_cancelled_tasks_are_left() -> None:
    made = broker(size=1, workers=1)
    mixed, other = package(5), package(1, client=b"other")
    made.accept(mixed)
    made.accept(other)
    (batch,) = made.dispatch()
    (slice,) = batch.slices
    made.cancel(b"client", "serial", range(1, 5))
    assert made.revoke() == []
    assert made.finish(batch.worker, [answer(slice, slice.first, slice.stop)]) == []
    assert made.revoke() == [mixed]
    assert mixed.assembly.join() == ended("", *["Cancelled"] * 4)
    assert run_all(made) == [other]


def test_a_cancel_that_is_no_news_recalls_nobody() -> None:
    made = broker(size=100, workers=1)
    made.accept(package(100))
    (batch,) = made.dispatch()
    made.cancel(b"client", "serial", [7])
    made.revoke()
    assert made.recalls() == [(batch.worker, batch.number)]
    made.cancel(b"client", "serial", [7])
    made.cancel(b"client", "serial", [100])
    assert made.revoke() == []
    assert made.recalls() == []


def test_cancelled_tasks_may_not_be_scattered_without_end() -> None:
    made = broker(size=100, workers=1)
    scattered = package(2 * MAX_RUNS + 4)
    made.accept(scattered)
    made.cancel(b"client", "serial", range(0, 2 * MAX_RUNS, 2))
    with pytest.raises(Overloaded, match="as a whole"):
        made.cancel(b"client", "serial", [2 * MAX_RUNS + 1])
    made.cancel(b"client", "serial", [1])
    made.revoke()
    assert run_all(made) == [scattered]
    assert scattered.assembly.join().count(b"Cancelled") == MAX_RUNS + 1


def test_a_package_of_many_lanes_takes_more_room() -> None:
    made = Broker(10, {"": 1, "arm": 1}, limits=Limits(10**6, 2**20, 10**6, 2**30))
    made.accept(package(2000))
    with pytest.raises(Overloaded, match="CLIENT_BYTES"):
        made.accept(package(2000, lanes=[("", 1), ("arm", 1)] * 1000))


def test_too_much_in_flight_is_refused_until_something_has_ended() -> None:
    made = Broker(10, {"": 1}, limits=Limits(10, 2**30, 20, 2**30))
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
    made = Broker(10, {"": 1}, limits=Limits(100, 2**30, 100, 2**20))
    made.join("w0", "")
    greedy = package(2)
    made.accept(greedy)
    (batch,) = made.dispatch()
    job = greedy.job
    huge = [(job, 0, 1, 0, 1, bytes(2**19)), (job, 1, 2, 0, 1, bytes(2**20))]
    assert made.finish(batch.worker, huge) == [greedy]
    assert greedy.assembly.join() == bytes(2**19) + b"<1 TaskFailed>"
    assert greedy.failed == 1
    made.accept(package(2))
    assert len(run_all(made)) == 1


def test_a_retired_worker_hands_back_what_it_has_and_gets_nothing_more() -> None:
    made = broker(size=100, workers=2)
    first = package(200)
    made.accept(first)
    held = {batch.worker: batch for batch in made.dispatch()}
    made.retire("w0")
    made.retire("nobody")
    assert made.recalls() == [("w0", held["w0"].number)]
    assert not made.is_free("w0")
    part = held["w0"].slices[0]
    assert made.finish("w0", [answer(part, part.first, part.first + 1)]) == []
    assert made.is_free("w0")
    assert not made.is_free("nobody")
    assert made.finish("w1", answers(held["w1"])) == []
    while batches := made.dispatch():
        assert {batch.worker for batch in batches} == {"w1"}
        for batch in batches:
            made.finish("w1", answers(batch))
    assert first.assembly.missing == 0


def test_what_waits_for_workers_that_will_not_come_is_refused() -> None:
    made = broker(workers=1, arm=2)
    waiting, running = package(4, lanes=[("arm", 4)]), package(3)
    for each in (waiting, running):
        made.accept(each)
    (batch,) = made.dispatch()
    made.stopping = True
    assert made.forsake() == [waiting]
    assert waiting.assembly.join() == ended(*["Overloaded"] * 4)
    assert made.leave(batch.worker, [None]) == []
    assert made.forsake() == [running]
    assert made.idle()


def test_deadlines_that_are_over_are_forgotten() -> None:
    made = broker()
    for number in range(1000):
        late = package(1)
        late.deadline = 1e6 + number
        made.accept(late)
        if number:
            run_all(made)
    assert len(made._deadlines) < 200
    run_all(made)
    assert not made.timed


def test_what_is_denied_is_answered_alone_and_at_once() -> None:
    made = broker(size=10)
    mixed = package(30, lanes=[("", 10), ("denied:gpio.write", 10), ("", 10)])
    assert made.accept(mixed) is False
    assert run_all(made) == [mixed]
    assert mixed.assembly.join() == ended(*[""] * 10, *["NotAllowed"] * 10, *[""] * 10)
    nothing = package(5, lanes=[("denied:gpio.write", 5)])
    assert made.accept(nothing) is True
    assert nothing.assembly.join() == ended(*["NotAllowed"] * 5)
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


def test_packages_with_one_serial_are_all_cancelled() -> None:
    made = broker(size=1, workers=1)
    packages = [package(3) for _ in range(5)]
    for each in packages:
        made.accept(each)
    (batch,) = made.dispatch()
    assert made.finish(batch.worker, answers(batch)) == []
    made.cancel(b"client", "serial")
    assert set(made.revoke()) == set(packages)
    assert made.idle()
    assert not made.serials


def test_the_older_package_of_a_serial_is_found_when_the_newer_is_gone() -> None:
    made = broker(size=1, workers=1)
    older, middle, newer = package(1), package(1), package(1)
    for each in (older, middle, newer):
        made.accept(each)
    made.cancel_all(lambda each: each in (middle, newer))
    assert set(made.revoke()) == {middle, newer}
    made.cancel(b"client", "serial")
    assert made.revoke() == [older]
    assert not made.serials


def test_a_serial_that_is_always_in_flight_keeps_no_package_that_is_over() -> None:
    """Each package referred to the one before with its serial: 3.4 GB were held of 0.5 MB that were counted."""
    made = broker(size=None, workers=1)
    alive = []
    made.accept(package(1))
    batches = made.dispatch()
    for _ in range(50):
        each = package(1)
        made.accept(each)
        alive.append(weakref.ref(each))
        del each
        batches += made.dispatch()
        batch = batches.pop(0)
        assert len(made.finish(batch.worker, answers(batch))) == 1
        batches += made.dispatch()
        assert not made.idle()
    del batch
    gc.collect()
    assert sum(each() is not None for each in alive) <= 2


def test_cancelling_a_repeated_serial_costs_what_it_says_and_not_as_often_as_it_is_in_flight() -> None:
    """3000 packages and one message with 16 000 positions had the router killed as hung."""
    made = broker(size=1, workers=1)
    packages = [package(3) for _ in range(500)]
    for each in packages:
        made.accept(each)
    looked_at = 0

    def positions() -> Iterator[int]:
        nonlocal looked_at
        for position in (1, 2):
            looked_at += 1
            yield position

    class Positions(list[int]):
        def __iter__(self) -> Iterator[int]:
            return positions()

    made.cancel(b"client", "serial", Positions())
    assert looked_at == 2
    assert [each.unwanted is not None for each in packages] == [False] * 499 + [True], "the last with that serial"
    made.cancel(b"client", "serial")
    assert all(each.reason is not None for each in packages)
    assert made.serials.take(b"client", "serial") == [], "there is nothing to look at again"
    assert set(made.revoke()) == set(packages)


def test_progress_looks_at_the_clients_own_packages_and_no_others() -> None:
    """It went through all that were in flight, of whomever."""
    made = broker()
    mine = [package(2), package(3)]
    for each in (package(1, client=b"other"), *mine, package(1, client=b"other")):
        made.accept(each)
    made.packages = {}
    assert made.serials.progress(mine[0].route) == [("serial", 0, 2), ("serial", 0, 3)]
    assert made.serials.progress((b"nobody",)) == []


def test_a_data_worker_serves_clients_in_turns_and_each_in_its_order() -> None:
    """Whoever asked for a large value again and again had everybody's publications wait for all of that."""
    lane = data_lane(0)
    made = Broker(None, {lane: 1})
    made.join("d", lane)
    sent = [package(1, lanes=[(lane, 1)], client=client) for client in [b"greedy"] * 50 + [b"modest"] * 2]
    for each in sent:
        made.accept(each)
    order = [done.job - sent[0].job for done in run_all(made, ns_a_task=10**8)]
    assert order[:50] != list(range(50))
    assert order.index(50) < order.index(51) < 10
    assert [job for job in order if job < 50] == list(range(50))
