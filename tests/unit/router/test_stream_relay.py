"""Values go from the worker that runs the task to the client that granted them, and credit the other way."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from taskengine import _fastpath
from taskengine.broker.binary import read_package
from taskengine.broker.broker import Broker
from taskengine.broker.package import Message, Package
from taskengine.broker.recovery import Account
from taskengine.client.stream_requests import as_stream
from taskengine.errors import ProtocolError
from taskengine.protocol.credit import MAX_VALUES, Grant
from taskengine.protocol.messages import (
    NOWHERE,
    UNSTAMPED,
    Request,
    RequestKind,
    StreamCredit,
    decode_request,
    encode_request,
)
from taskengine.router.stream_relay import StreamRelay
from tests.partial_frames import read_partial

NIL = b"\xc0"


class Relay:
    """A relay with a broker of two workers, and what it sent: first number, count, whether it is the end, the error."""

    def __init__(self) -> None:
        self.broker = Broker(1, {"": 2})
        for name in "w0", "w1":
            self.broker.join(name, "", cancels=True)
        self.sent: list[tuple[int, int, bool, str]] = []
        self.has_room = self.is_owed = True
        self.relay = StreamRelay(self.broker, self, lambda sender: self.is_owed, lambda: UNSTAMPED)

    def is_full(self, client: bytes, key: str, size: int) -> bool:
        return not self.has_room

    def send(self, route: Sequence[bytes], frames: Message, key: str = "", size: int = 0) -> None:
        reply, _ = read_partial(frames)
        self.sent.append((reply.first, reply.count, reply.last, "" if reply.error is None else reply.error[1]))

    def begin(self, values: int = 4) -> tuple[Package, str, int]:
        """Return a stream that runs, its worker and its job."""
        index, body = _fastpath.pack_calls([("scan", (), {})], {})
        request = as_stream(Request(RequestKind.PACKAGE, 1, "ARM", ["scan"]), Grant(values, 100))
        head = encode_request(request)
        package = read_package((b"client",), decode_request(head), [head, index, body], {"scan": ""}, 1, NOWHERE)
        assert not self.broker.accept(package)
        [batch] = self.broker.dispatch()
        return package, batch.worker, package.flight.job

    def finish(self, worker: str, job: int, entry: bytes = NIL) -> None:
        for package in self.broker.finish(worker, [(job, 0, 1, int(entry != NIL), 1000, entry)]):
            self.relay.end(package)


@pytest.fixture
def made() -> Relay:
    return Relay()


def test_values_of_one_turn_share_a_message_and_the_end_comes_behind_them(made: Relay) -> None:
    _, worker, job = made.begin()
    made.relay.take(worker, job, 0, b"\x01")
    made.relay.take(worker, job, 1, b"\x02")
    made.relay.send()
    made.relay.take(worker, job, 2, b"\x03")
    made.finish(worker, job)
    assert made.sent == [(0, 2, False, ""), (2, 1, False, ""), (3, 0, True, "")]
    assert not made.relay.fresh


def test_what_was_granted_before_the_worker_was_known_is_told_it(made: Relay) -> None:
    _, worker, job = made.begin(values=1)
    made.relay.grant(b"client", StreamCredit(1, 3, 100))
    assert made.relay.take_grants() == []
    made.relay.take(worker, job, 0, b"\x01")
    assert made.relay.take_grants() == [(worker, job, Grant(3, 100))]
    assert not made.relay.has_grants
    made.relay.grant(b"client", StreamCredit(1, 3, 100))
    made.relay.grant(b"other", StreamCredit(1, 9, 100))
    made.relay.grant(b"client", StreamCredit(2, 9, 100))
    assert made.relay.take_grants() == [], "it is the same, or of nobody's stream"


def test_too_much_credit_is_refused(made: Relay) -> None:
    made.begin()
    with pytest.raises(ProtocolError, match="at most 1024 values"):
        made.relay.grant(b"client", StreamCredit(1, MAX_VALUES + 1, 100))


@pytest.mark.parametrize(("worker", "job", "number"), [("w1", 1, 0), ("w0", 2, 0), ("w0", 1, 1)])
def test_a_worker_sends_only_the_next_value_of_what_it_runs(made: Relay, worker: str, job: int, number: int) -> None:
    _, runs, known = made.begin()
    assert (runs, known) == ("w0", 1)
    with pytest.raises(ProtocolError):
        made.relay.take(worker, job, number, b"\x01")
    made.relay.take("w0", 1, 0, b"\x01")


def test_a_worker_sends_no_more_than_was_granted(made: Relay) -> None:
    _, worker, job = made.begin(values=1)
    made.relay.take(worker, job, 0, b"\x01")
    with pytest.raises(ProtocolError):
        made.relay.take(worker, job, 1, b"\x02")


def test_a_client_that_leaves_too_much_unread_gets_the_end_and_the_task_is_cancelled(made: Relay) -> None:
    package, worker, job = made.begin()
    made.relay.take(worker, job, 0, b"\x01")
    made.relay.send()
    made.has_room = False
    made.relay.take(worker, job, 1, b"\x02")
    made.relay.send()
    made.relay.take(worker, job, 2, b"\x03")
    made.relay.send()
    made.broker.settle(0.0)
    assert made.broker.workers.cancellations() == [(worker, [(job, 0, 1)])]
    made.finish(worker, job)
    assert made.sent[:1] == [(0, 1, False, "")]
    [(_, count, is_last, error)] = made.sent[1:]
    assert (count, is_last) == (0, True)
    assert "were not read" in error
    assert package not in made.relay.fresh


def test_whoever_may_have_nothing_any_more_gets_no_values(made: Relay) -> None:
    _, worker, job = made.begin()
    made.is_owed = False
    made.relay.take(worker, job, 0, b"\x01")
    made.relay.send()
    assert made.sent == []


def test_a_package_of_several_tasks_is_no_stream() -> None:
    index, body = _fastpath.pack_calls([("scan", (), {})] * 2, {})
    head = encode_request(as_stream(Request(RequestKind.PACKAGE, 1, "ARM", ["scan"]), Grant(1, 1)))
    with pytest.raises(ProtocolError, match="one task"):
        read_package((b"client",), decode_request(head), [head, index, body], {}, 1, NOWHERE)


@pytest.mark.parametrize("grant", [Grant(0, 1), Grant(1, 0), Grant(MAX_VALUES + 1, 1)])
def test_a_stream_begins_with_some_credit_and_not_too_much(grant: Grant) -> None:
    with pytest.raises(ProtocolError):
        decode_request(encode_request(as_stream(Request(RequestKind.PACKAGE, 1, "ARM", ["scan"]), grant)))


@pytest.mark.parametrize("has_all", [False, True])
def test_a_stream_that_a_dead_worker_had_finished_ends_well_only_if_all_values_came(made: Relay, has_all: bool) -> None:
    _, worker, job = made.begin()
    made.relay.take(worker, job, 0, b"\x01")
    if has_all:
        made.relay.take(worker, job, 1, b"")
    [package] = made.broker.leave(worker, [Account([(job, 0, 1, 0, 1000, NIL)], None, None)])
    made.relay.end(package)
    (*_, error) = made.sent[-1]
    assert made.sent[0] == (0, 1, False, "")
    assert ("lost" in error or "died" in error) is not has_all


def test_a_dead_workers_stream_runs_again_if_it_may_and_no_value_came(made: Relay) -> None:
    package, worker, job = made.begin()
    package.idempotent = True
    assert made.broker.leave(worker, [Account([(job, 0, 1, 0, 1000, NIL)], None, None)]) == []
    [batch] = made.broker.dispatch()
    assert batch.worker != worker


def test_the_number_of_values_at_the_end_is_right(made: Relay) -> None:
    _, worker, job = made.begin()
    made.relay.take(worker, job, 0, b"\x01")
    with pytest.raises(ProtocolError, match="of 2 values, of which 1 have come"):
        made.relay.take(worker, job, 2, b"")
