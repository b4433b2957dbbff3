"""Entries go out as they come, and wait where their client does not read: joined, counted, and none twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from taskengine import _fastpath
from taskengine.broker.binary import read_package
from taskengine.broker.broker import Broker
from taskengine.broker.package import Message, Package
from taskengine.broker.quota import QuotaLimits
from taskengine.protocol.messages import (
    NOWHERE,
    UNSTAMPED,
    PartialReply,
    ReplyMode,
    Request,
    RequestKind,
    encode_request,
)
from taskengine.router.partial_replies import LOOKED_AT, PartialReplies
from taskengine.router.tuning import LATE_S, PART_S, UNREAD_PARTS
from tests.partial_frames import read_partial

Sent = list[tuple[PartialReply, list[bytes]]]


class Outlet:
    """What was sent, and whether the client has too much unread."""

    def __init__(self) -> None:
        self.sent: Sent = []
        self.full = False

    def is_full(self, client: bytes, key: str, size: int) -> bool:
        return self.full

    def send(self, route: Sequence[bytes], frames: Message, key: str = "", size: int = 0) -> None:
        reply, body = read_partial(frames)
        assert size == sum(map(len, body))
        self.sent.append((reply, body))

    def told(self) -> list[tuple[int, int, bool]]:
        """First position, count and whether it is the last, of each reply."""
        return [(reply.first, reply.count, reply.last) for reply, _ in self.sent]


class Connections:
    """A client that reads, or does not."""

    def __init__(self) -> None:
        self.reads = True

    def has_read(self, client: bytes) -> bool:
        return self.reads

    def cut_off(self, client: bytes, reason: str = "") -> None:
        raise AssertionError("it is answered")


class Street:
    """A broker with a worker for each task, and the replies to one client."""

    def __init__(self, workers: int) -> None:
        self.broker = Broker(1, {"": workers}, limits=QuotaLimits(10**6, 10**9, 10**6, 10**9))
        for number in range(workers):
            self.broker.join(f"w{number}", "")
        self.outlet, self.connections = Outlet(), Connections()
        self.is_owed = True
        self.replies = PartialReplies(
            self.broker,
            self.outlet,
            self.connections,
            lambda sender: self.is_owed,
            lambda: UNSTAMPED,
        )
        self.now = 0.0

    def accept(self, tasks: int, serial: int = 1) -> Package:
        """A package whose tasks are at workers, one each, task i at worker i."""
        index, body = _fastpath.pack_calls([("x", (), {})] * tasks, {})
        request = Request(RequestKind.PACKAGE, serial, "ARM", ["x"], ReplyMode.EACH)
        package = read_package((b"client",), request, [encode_request(request), index, body], {"x": ""}, 1, NOWHERE)
        self.broker.accept(package)
        self.worker_of = {batch.slices[0].first: batch.worker for batch in self.broker.dispatch()}
        return package

    def finish(self, package: Package, *positions: int) -> None:
        """These tasks end in one turn of the router."""
        for at in positions:
            whole = self.broker.finish(self.worker_of[at], [(package.flight.job, at, at + 1, 0, 1000, b"%c" % at)])
            for ended in whole:
                self.replies.end(ended)
        self.turn()

    def turn(self) -> None:
        """A turn of the router, and one in which what came before is due."""
        self.replies.send(self.broker.take_progressed(), self.now)
        self.now += LATE_S
        self.replies.send(self.broker.take_progressed(), self.now)


def test_what_ends_in_a_turn_is_sent_after_it_and_the_last_is_marked() -> None:
    street = Street(6)
    package = street.accept(6)
    street.turn()
    assert street.outlet.sent == []
    street.finish(package, 1, 3, 2)
    street.finish(package, 5)
    street.finish(package, 0, 4)
    assert street.outlet.told() == [(1, 3, False), (5, 1, False), (0, 1, False), (4, 1, True)]
    assert [b"".join(body) for _, body in street.outlet.sent] == [b"\1\2\3", b"\5", b"\0", b"\4"]
    assert (street.broker.stats({}).bytes_in_flight, street.broker.progressed) == (0, {})


def test_entries_wait_for_others_but_not_for_long() -> None:
    street = Street(4)
    package = street.accept(4)
    for at, now in (2, 1.0), (0, 1.0 + PART_S / 2):
        street.broker.finish(street.worker_of[at], [(package.flight.job, at, at + 1, 0, 1000, b"%c" % at)])
        street.replies.send(street.broker.take_progressed(), now)
    assert (street.replies.are_new, street.outlet.sent) == (True, [])
    street.replies.send([], 1.0 + 1.1 * PART_S)
    assert street.outlet.told() == [(0, 1, False), (2, 1, False)]
    street.finish(package, 1, 3)
    assert not street.replies.are_new


def test_an_empty_package_is_answered_by_one_reply() -> None:
    street = Street(1)
    street.replies.end(street.accept(0))
    assert street.outlet.told() == [(0, 0, True)]


def test_what_a_client_does_not_read_waits_and_is_joined() -> None:
    street = Street(4)
    package = street.accept(4)
    street.outlet.full = True
    street.finish(package, 1)
    street.finish(package, 0)
    assert street.outlet.sent == []
    held = street.broker.stats({}).bytes_in_flight
    street.outlet.full = False
    street.turn()
    assert street.outlet.told() == [(0, 2, False)]
    assert not street.replies.are_late
    assert street.broker.stats({}).bytes_in_flight == held - 2
    street.finish(package, 2)
    street.finish(package, 3)
    assert street.outlet.told() == [(0, 2, False), (2, 1, False), (3, 1, True)]


def test_a_package_that_ends_is_answered_whatever_was_read() -> None:
    street = Street(3)
    package = street.accept(3)
    street.outlet.full = True
    street.finish(package, 2)
    street.finish(package, 0, 1)
    ((reply, body),) = street.outlet.sent
    assert (reply.first, reply.count, reply.last, body) == (0, 3, True, [])
    assert reply.error is not None
    assert "the tasks have run" in reply.error[1]
    assert not street.replies.are_late


def test_a_client_that_reads_nothing_gets_only_so_many_partial_replies() -> None:
    street = Street(1)
    street.connections.reads = False
    for serial in range(1, UNREAD_PARTS + 1):
        package = street.accept(1, serial)
        street.finish(package, 0)
    two = Street(2)
    two.replies._unread._sent = street.replies._unread._sent
    two.connections.reads = False
    package = two.accept(2)
    two.finish(package, 0)
    assert two.outlet.sent == []
    two.connections.reads = True
    two.turn()
    assert two.outlet.told() == [(0, 1, False)]
    assert UNREAD_PARTS > LOOKED_AT


def test_who_is_not_let_in_any_more_gets_nothing() -> None:
    street = Street(2)
    package = street.accept(2)
    street.is_owed = False
    street.finish(package, 0)
    assert street.outlet.sent == []
    assert package.results.held == 0


@pytest.mark.parametrize("reads", [True, False])
def test_what_is_late_is_not_looked_at_in_each_turn(reads: bool) -> None:
    street = Street(2)
    package = street.accept(2)
    street.outlet.full = True
    street.finish(package, 0)
    street.outlet.full = not reads
    street.replies.send([], street.now)
    assert street.replies.are_late, "it was looked at in this moment"
    street.turn()
    assert street.replies.are_late is not reads
