"""Packages in flight by their serials, of which a client may repeat one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

from tests.brokers import broker
from tests.packages import answers, package


def test_packages_with_one_serial_are_all_cancelled() -> None:
    made = broker(size=1, workers=1)
    packages = [package(3) for _ in range(5)]
    for each in packages:
        made.accept(each)
    (batch,) = made.dispatch()
    assert made.finish(batch.worker, answers(batch)) == []
    made.withdrawals.cancel(b"client", "serial")
    assert set(made.revoke()) == set(packages)
    assert made.idle()
    assert not made.serials


def test_the_older_package_of_a_serial_is_found_when_the_newer_is_gone() -> None:
    made = broker(size=1, workers=1)
    older, middle, newer = package(1), package(1), package(1)
    for each in (older, middle, newer):
        made.accept(each)
    made.withdrawals.cancel_where(lambda each: each in (middle, newer))
    assert set(made.revoke()) == {middle, newer}
    made.withdrawals.cancel(b"client", "serial")
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

    made.withdrawals.cancel(b"client", "serial", Positions())
    assert looked_at == 2
    assert [each.flight.cancellation.tasks is not None for each in packages] == [False] * 499 + [True], (
        "the last with that serial"
    )
    made.withdrawals.cancel(b"client", "serial")
    assert all(each.flight.cancellation.reason is not None for each in packages)
    assert made.serials.take(b"client", "serial") == [], "there is nothing to look at again"
    assert set(made.revoke()) == set(packages)


def test_progress_looks_at_the_clients_own_packages_and_no_others() -> None:
    """It went through all that were in flight, of whomever."""
    made = broker()
    mine = [package(2), package(3)]
    for each in (package(1, client=b"other"), *mine, package(1, client=b"other")):
        made.accept(each)
    made.packages = {}
    assert made.serials.progress(mine[0].sender.route) == [("serial", 0, 2), ("serial", 0, 3)]
    assert made.serials.progress((b"nobody",)) == []
