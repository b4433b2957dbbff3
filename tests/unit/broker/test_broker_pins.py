"""Lanes with pins, and clients that leave: nothing moves that nobody alive has asked for."""

from __future__ import annotations

import pytest

from taskengine.broker.broker import Broker
from taskengine.broker.package import Package
from taskengine.broker.recovery import Account
from taskengine.errors import WorkerLost
from tests.packages import Plain, answers, package

OTHER = b"somebody else"


def broker(*idempotent: str) -> Broker:
    made = Broker(1, {"": 1, "pins": 1}, idempotent, pinned=("pins",))
    made.join("owner", "pins")
    made.join("w", "")
    return made


def command(tasks: int = 3, *, kind: str = "motor.forward", client: bytes = b"client", lane: str = "pins") -> Plain:
    return package(tasks, kind=kind, client=client, lanes=[(lane, tasks)])


def errors(done: Package) -> list[bytes]:
    """The error of each task, b"" where it ran."""
    entries = done.results.join().strip(b"<>").split(b"><")
    return [entry.partition(b" ")[2] for entry in entries]


def run_all(made: Broker) -> list[Package]:
    whole = made.settle(0.0)
    while batches := made.dispatch():
        for batch in batches:
            whole += made.finish(batch.worker, answers(batch))
        whole += made.settle(0.0)
    return whole


def test_commands_end_with_the_owner_that_they_waited_for() -> None:
    made = broker("devices.state")
    held, waiting, asking, elsewhere = command(), command(), command(kind="devices.state"), command(lane="")
    for each in (held, waiting, asking, elsewhere):
        made.accept(each)
    assert "owner" in [batch.worker for batch in made.dispatch()]
    made.leave("w", [None] * len(made.workers.held("w")))
    made.join("x", "")
    accounts = [None] * len(made.workers.held("owner"))
    assert set(made.leave("owner", accounts)) == {held, waiting}
    assert errors(held) == errors(waiting) == [b"WorkerLost"] * 3
    made.join("next", "pins")
    after = command()
    made.accept(after)
    assert set(run_all(made)) == {asking, elsewhere, after}
    assert errors(asking) == errors(elsewhere) == errors(after) == [b""] * 3


def test_a_command_that_may_run_again_does_not_where_it_was_behind_a_death() -> None:
    made = broker()
    one = command(1)
    one.idempotent = True
    made.accept(one)
    made.dispatch()
    assert made.leave("owner", [Account([], None, (one.flight.job, 0))]) == [one]
    assert errors(one) == [b"WorkerLost"]


def test_of_a_package_of_two_lanes_only_what_moves_something_is_lost() -> None:
    made = broker()
    mixed = package(4, kind="x", lanes=[("", 2), ("pins", 2)])
    made.accept(mixed)
    assert made.leave("owner", []) == []
    assert run_all(made) == [mixed]
    assert errors(mixed) == [b"", b"", b"WorkerLost", b"WorkerLost"]


@pytest.mark.parametrize("how", ["reload", "new connection"])
def test_an_owner_that_has_not_died_leaves_its_commands_to_the_next(how: str) -> None:
    made = broker()
    held, waiting = command(), command()
    made.accept(held)
    made.accept(waiting)
    made.dispatch()
    if how == "reload":
        made.workers.retire("owner")
    accounts = [None] * len(made.workers.held("owner"))
    assert made.leave("owner", accounts, is_dead=how == "reload") == []
    made.join("next", "pins")
    assert run_all(made) == [held, waiting]
    assert errors(held) == errors(waiting) == [b""] * 3


def test_an_owner_that_is_killed_because_it_hangs_is_dead() -> None:
    made = broker()
    waiting = command()
    made.accept(waiting)
    made.workers.exclude("owner")
    assert made.leave("owner", []) == [waiting]
    assert errors(waiting) == [b"WorkerLost"] * 3
    assert made.counters.stats([], 0, 0, {}).errors == {WorkerLost.__name__: 3}


def test_the_queue_of_a_client_that_has_left_does_not_start() -> None:
    made = broker()
    asked, sent, moving, other = command(lane=""), command(lane=""), command(), command(client=OTHER)
    asked.is_awaited = True
    for each in (asked, sent, moving, other):
        made.accept(each)
    was_timed = made.withdrawals.is_timed
    made.withdrawals.client_left(b"client")
    assert (was_timed, made.withdrawals.is_timed) == (False, True), "the router is not to wait for what happens next"
    assert set(run_all(made)) == {asked, sent, moving, other}
    assert errors(asked) == errors(moving) == [b"Cancelled"] * 3
    assert errors(sent) == errors(other) == [b""] * 3
    made.withdrawals.client_left(b"nobody")
    assert made.settle(0.0) == []


def test_what_its_workers_have_and_have_not_begun_comes_back() -> None:
    made = broker()
    run_all(made)
    for _ in range(2):
        made.accept(command(1))
        run_all(made)
    moving = command(50)
    made.accept(moving)
    (batch,) = made.dispatch()
    made.withdrawals.client_left(b"client")
    made.settle(0.0)
    assert made.recalls() == [("owner", batch.number)]
    begun = batch.slices[0]
    assert made.finish("owner", [answers(batch)[0]][:0]) == [moving]
    assert errors(moving) == [b"Cancelled"] * 50
    assert begun.package is moving


def test_of_what_it_wants_no_answer_to_only_what_moves_something_is_dropped() -> None:
    made = broker()
    mixed = package(6, kind="x", lanes=[("", 2), ("pins", 3), ("", 1)])
    made.accept(mixed)
    made.withdrawals.client_left(b"client")
    assert run_all(made) == [mixed]
    assert errors(mixed) == [b"", b"", b"Cancelled", b"Cancelled", b"Cancelled", b""]


def test_and_only_what_has_not_been_answered() -> None:
    made = broker()
    mixed = package(4, kind="x", lanes=[("pins", 2), ("", 2)])
    made.accept(mixed)
    for batch in made.dispatch():
        made.finish(batch.worker, answers(batch))
    made.withdrawals.client_left(b"client")
    made.withdrawals.client_left(b"client")
    assert run_all(made) == [mixed]
    assert errors(mixed)[0] == b""
    assert errors(mixed)[2:] == [b"", b""]
    assert made.idle()
