from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from taskengine import _fastpath
from taskengine.client.calls import Call
from taskengine.client.clock import LATEST
from taskengine.client.requests import Options, OutgoingRequest, Pending
from taskengine.client.session import GREET_NS, HELLO_S, Session
from taskengine.client.task_future import Outcome, TaskFuture, settle
from taskengine.errors import (
    BadArguments,
    Cancelled,
    EngineUnreachable,
    NotAllowed,
    ProtocolError,
    TaskEngineError,
    TaskTimeout,
    to_wire,
)
from taskengine.protocol.limits import MAX_HEAD, REPEATS
from taskengine.protocol.messages import (
    NO_SERIAL,
    Info,
    Priority,
    Reply,
    ReplyMode,
    Request,
    RequestKind,
    decode_cancel,
    decode_request,
    encode_reply,
    encode_request,
    stamped,
)
from tests.unit.client.sessions import ADDRESS, MS, TIMED_INFO, TOKEN, S, greeted, submitted


def test_a_package_says_who_asks_for_what() -> None:
    session, future = Session("ARM", ADDRESS), Future[Any]()
    options = Options(deadline=1.5, priority="urgent", reply="errors", idempotent=True)
    calls: list[Any] = [("a", (1,), {}), ("b", (), {"x": 2}), ("a", (3,), {})]
    outgoing = session.package(calls, [future], options, each=False)
    head, index, _ = outgoing.frames
    assert outgoing.serial == 1
    request = decode_request(head)
    assert (request.kind, request.serial, request.client, request.names) == (RequestKind.PACKAGE, 1, "ARM", ["a", "b"])
    assert (request.reply, request.priority) == (ReplyMode.ERRORS, Priority.URGENT)
    assert (request.deadline, request.idempotent) == (1.5, True)
    assert len(index) == 12
    assert decode_request(session.request(RequestKind.INFO, Future(), Options()).frames[0]).serial == 2


def test_what_gave_up_waiting_is_passed_over() -> None:
    session, futures = submitted(1)
    session.forget(1)
    assert not session.receive([encode_reply(Reply(1, 1)), b"\x01"])
    session, futures = submitted(1)
    futures[0].cancel()
    settle(session.receive([encode_reply(Reply(1, 1)), b"\x01"]))
    assert futures[0].cancelled()


class Interrupted(dict[int, Pending]):
    """Pending requests that interrupt the first caller who takes one out."""

    whole = False

    def pop(self, *args: Any) -> Any:
        if not self.whole:
            self.whole = True
            raise KeyboardInterrupt
        return super().pop(*args)


def lost(session: Session) -> deque[Outcome]:
    session.lose([1])
    return session.outcomes


def test_one_that_is_interrupted_loses_nothing() -> None:
    decisions: list[Callable[[Session], deque[Outcome]]] = [
        lambda session: session.receive([encode_reply(Reply(1, 2)), b"\x01\x01"]),
        lost,
        lambda session: session.expire(100.0, connected=True),
    ]
    for decide in decisions:
        session, futures = submitted(2)
        session.watch(1, 10.0)
        session.pending = Interrupted(session.pending)
        with pytest.raises(KeyboardInterrupt):
            decide(session)
        settle(decide(session))
        assert [future.done() for future in futures] == [True, True]
        assert (session.pending, session.due(10.0)) == ({}, math.inf)


def test_what_another_thread_watches_meanwhile_still_expires() -> None:
    class Shared(dict[int, Pending]):
        def __contains__(self, serial: object) -> bool:
            if serial == 1 and not watched:
                watched.append(2)
                session.watch(2, 5.0)
            return super().__contains__(serial)

    watched: list[int] = []
    session, _ = submitted(1, timeout=3.0)
    session.watch(1, 10.0)
    session.forget(1)
    session.package([("task_count", (2, 3), {})], [Future()], Options(timeout=3.0), each=True)
    session.pending = Shared(session.pending)
    session.due(5.0)
    assert session.due(5.0) == 3.0


def test_closing_gives_up_what_is_pending() -> None:
    session, futures = submitted(2)
    settle(session.give_up(Cancelled()))
    assert [type(future.exception(0)) for future in futures] == [Cancelled, Cancelled]
    assert session.pending == {}


@pytest.mark.parametrize(("connected", "expected"), [(True, TaskTimeout), (False, EngineUnreachable)])
def test_what_is_watched_expires(connected: bool, expected: type[TaskEngineError]) -> None:
    session, futures = submitted(2, timeout=3.0)
    assert session.due(10.0) == math.inf
    session.watch(1, 10.0)
    assert session.due(11.0) == 2.0
    assert not session.expire(12.9, connected=connected)
    settle(session.expire(13.0, connected=connected))
    assert [type(future.exception(0)) for future in futures] == [expected, expected]
    assert session.pending == {}
    assert session.due(13.0) == math.inf


def test_what_was_answered_or_has_no_timeout_does_not_expire() -> None:
    session, futures = submitted(1, timeout=None)
    session.watch(1, 10.0)
    assert session.due(1e9) == math.inf
    session, futures = submitted(1, timeout=1.0)
    session.watch(1, 10.0)
    settle(session.receive([encode_reply(Reply(1, 1)), b"\x01"]))
    assert session.due(10.0) == math.inf
    assert not session.expire(99.0, connected=True)
    assert futures[0].result(0) == 1


def test_a_lost_connection_fails_what_was_sent_over_it() -> None:
    session, futures = submitted(1)
    other = Future[Any]()
    session.package([("task_count", (2, 3), {})], [other], Options(), each=True)
    assert session.lose([1, 99]) == []
    settle(session.outcomes)
    assert isinstance(futures[0].exception(0), EngineUnreachable)
    assert not other.done()
    assert list(session.pending) == [2]


def test_what_may_run_twice_is_sent_again_but_not_for_ever() -> None:
    session = Session("C", "tcp://127.0.0.1:9000")
    future = Future[Any]()
    outgoing = session.package([("task_count", (2, 3), {})], [future], Options(idempotent=True), each=True)
    for _ in range(REPEATS):
        assert session.lose([1]) == [outgoing]
        assert not session.outcomes
    assert session.lose([1]) == []
    settle(session.outcomes)
    assert isinstance(future.exception(0), EngineUnreachable)


def cancellable(session: Session, count: int, **options: Any) -> list[TaskFuture]:
    """A package of so many calls, whose futures the session's retractions learn of."""
    futures = [TaskFuture(session.retract) for _ in range(count)]
    for future in futures:
        future.set_running_or_notify_cancel()
    session.package([("task_count", (2, 3), {})] * count, futures, Options(**options), each=True)
    return futures


def retracted(session: Session) -> list[tuple[Any, ...]]:
    return [
        (cancel.serial, cancel.positions) for cancel in (decode_cancel(each.frames) for each in session.retracted())
    ]


def test_what_is_cancelled_one_by_one_is_told_at_once() -> None:
    session = Session("C", ADDRESS)
    first, second = cancellable(session, 4), cancellable(session, 2)
    for future in (first[3], second[0], first[1]):
        assert not future.cancel()
    session.retract(2, None)
    session.retract(2, 1)
    assert retracted(session) == [(1, [3, 1]), (2, None)]
    assert retracted(session) == []


def test_many_positions_are_told_in_messages_that_fit() -> None:
    session = Session("C", ADDRESS)
    for position in range(100_000, 125_000):
        session.retract(1, position)
    told = [*session.retracted()]
    assert all(len(outgoing.frames[1]) < MAX_HEAD for outgoing in told)
    positions = [decode_cancel(outgoing.frames).positions or [] for outgoing in told]
    assert [position for part in positions for position in part] == [*range(100_000, 125_000)]


def test_what_is_cancelled_while_it_is_packed_is_told_behind_its_package() -> None:
    session = Session("C", ADDRESS)
    futures = [TaskFuture(session.retract) for _ in range(3)]
    for future in futures:
        future.set_running_or_notify_cancel()
    futures[1].cancel()
    assert retracted(session) == []
    session.package([("task_count", (2, 3), {})] * 3, futures, Options(), each=True)
    assert retracted(session) == [(1, [1])]


def test_what_nobody_wants_is_not_sent_again() -> None:
    session = Session("C", ADDRESS)
    gone, part = cancellable(session, 2, idempotent=True), cancellable(session, 3, idempotent=True)
    for future in (*gone, part[1]):
        future.cancel()
    retracted(session)
    assert [outgoing.serial for outgoing in session.lose([1, 2])] == [2]
    assert retracted(session) == [(2, [1])]
    settle(session.outcomes)
    assert [type(future.exception(0)) for future in gone] == [EngineUnreachable] * 2
    session.retract_all()
    assert session.lose([2]) == []


def test_an_error_entry_that_is_none_fails_alone() -> None:
    session, futures = submitted(3)
    body = b"\x01" + b"\xc7\x01\x01\xc1" + b"\x02"
    settle(session.receive([encode_reply(Reply(1, 3, failed=1)), body]))
    assert isinstance(futures[1].exception(0), ProtocolError)
    assert (futures[0].result(0), futures[2].result(0)) == (1, 2)


@pytest.mark.parametrize("call", [("x", (object(),), {}), ("\ud800", (), {}), ("x" * 70_000, (), {})])
def test_what_cannot_be_sent_leaves_nothing_pending(call: Call) -> None:
    session = Session("ARM", ADDRESS)
    with pytest.raises(BadArguments):
        session.package([call], [Future()], Options(), each=True)
    with pytest.raises(BadArguments):
        session.mapped(call[0], [[object()]], Future(), Options())
    with pytest.raises(BadArguments):
        Session("\ud800", ADDRESS).package([("x", (), {})], [Future()], Options(), each=True)
    assert session.pending == {}


def test_a_refusal_of_what_the_engine_cannot_read_ends_all_that_waits() -> None:
    session, futures = submitted(2)
    refusal = Reply(NO_SERIAL, 0, error=to_wire(ProtocolError("a head that is none")))
    settle(session.receive([encode_reply(refusal)]))
    assert [type(future.exception(0)) for future in futures] == [ProtocolError] * 2


def test_a_deadline_in_the_next_century_is_none() -> None:
    outgoing = Session("ARM", ADDRESS).package([("x", (), {})], [Future()], Options(deadline=1e12), each=True)
    assert decode_request(outgoing.frames[0]).deadline == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"priority": "soon"},
        {"reply": "some"},
        {"errors": "hide"},
        {"timeout": 0},
        {"deadline": -1.0},
        {"timeout": "1"},
        {"deadline": True},
        {"deadline": float("nan")},
        {"idempotent": 1},
    ],
)
def test_wrong_options_name_what_is_allowed(options: dict[str, Any]) -> None:
    with pytest.raises(BadArguments, match=next(iter(options))):
        Options(**options)


def packaged(session: Session, made: int, **options: Any) -> OutgoingRequest:
    return session.package([("x", (), {})], [Future()], Options(**options), each=True, made=made)


def test_a_hello_says_what_the_client_can() -> None:
    session = Session("ARM", ADDRESS, TOKEN)
    hello = session.greet(S)
    assert hello is not None
    head, body = session.write(hello, S)
    request = decode_request(head)
    assert (request.kind, request.token, request.sent) == (RequestKind.INFO, b"", 0)
    assert msgspec.msgpack.decode(body) == [["clock", "stop", "values"]]


def test_nothing_else_is_to_be_sent_before_the_hello_is_answered() -> None:
    session = Session("ARM", ADDRESS)
    ready = [session.is_ready]
    hello = session.greet(S)
    assert hello is not None
    ready.append(session.is_ready)
    session.greeted(hello, S)
    assert session.greet(S) is None
    ready.append(session.is_ready)
    settle(session.receive([encode_reply(Reply(hello.serial, 1)), _fastpath.encode(msgspec.to_builtins(TIMED_INFO))]))
    assert ([*ready, session.is_ready], session.greet(2 * S)) == ([False, False, False, True], None)
    assert session.info == TIMED_INFO


def test_a_package_says_when_it_was_called_and_by_which_client() -> None:
    session = greeted(TIMED_INFO)
    # the engine's clock showed 500 s when ours showed 100.001 s, give or take 1 ms
    outgoing = packaged(session, made=100 * S + 501 * MS)
    request = decode_request(session.write(outgoing, 105 * S)[0])
    assert request.sent == 500 * S + 500 * MS
    assert MS < request.bound < 2 * MS
    assert request.token == TOKEN
    # the earliest moment at which the client can have been made
    assert 489 * S < request.since <= 500 * S - 10 * S - MS


def test_what_is_sent_again_is_as_old_as_it_is() -> None:
    session = greeted(TIMED_INFO)
    outgoing = packaged(session, made=100 * S + MS, idempotent=True)
    first = decode_request(session.write(outgoing, 100 * S + MS)[0])
    (again,) = session.lose([outgoing.serial])
    assert not session.is_ready
    hello = session.greet(103 * S)
    assert hello is not None
    session.write(hello, 103 * S)
    session.greeted(hello, 103 * S)
    reply = Reply(hello.serial, 1, clock=503 * S, boot=7)
    body = _fastpath.encode(msgspec.to_builtins(TIMED_INFO))
    settle(session.receive([encode_reply(reply), body], 103 * S + 2 * MS))
    second = decode_request(session.write(again, 104 * S)[0])
    assert (first.sent, second.sent) == (500 * S, 500 * S)
    assert first.token == second.token


def test_a_lost_connection_forgets_the_clock() -> None:
    session = greeted(TIMED_INFO)
    session.lose([])
    assert decode_request(session.write(packaged(session, made=101 * S), 101 * S)[0]).sent == 0


@pytest.mark.parametrize("answer", [Info(2, 0.03, 3, 2, [], 1), NotAllowed("no INFO")], ids=["0.1.0", "refused"])
def test_an_engine_that_does_not_ask_for_times_gets_none(answer: Any) -> None:
    session = greeted(answer)
    assert session.is_ready
    outgoing = packaged(session, made=100 * S)
    assert session.write(outgoing, 101 * S) == outgoing.frames
    request = decode_request(outgoing.frames[0])
    assert (request.sent, request.bound, request.token, request.since) == (0, 0, b"", 0)


def test_an_old_estimate_is_renewed_before_anything_is_sent() -> None:
    session = greeted(TIMED_INFO, now=100 * S)
    assert session.greet(130 * S) is None
    hello = session.greet(131 * S)
    assert hello is not None
    session.greeted(hello, 131 * S)
    assert not session.is_ready


def test_any_reply_renews_the_estimate() -> None:
    session = greeted(TIMED_INFO, now=100 * S)
    outgoing = packaged(session, made=129 * S)
    session.write(outgoing, 129 * S)
    session.receive([encode_reply(Reply(outgoing.serial, 1, clock=530 * S, boot=7)), b"\x01"], 129 * S + MS)
    assert session.greet(150 * S) is None


def test_a_slow_link_is_not_asked_again_and_again() -> None:
    session = greeted(TIMED_INFO, now=100 * S)
    hello = session.greet(131 * S)
    assert hello is not None
    session.write(hello, 131 * S)
    session.greeted(hello, 131 * S)
    body = _fastpath.encode(msgspec.to_builtins(TIMED_INFO))
    # no better than what is known since 31 s
    session.receive([encode_reply(Reply(hello.serial, 1, clock=531 * S, boot=7)), body], 131 * S + 200 * MS)
    assert session.greet(132 * S) is None


def test_a_hello_that_is_not_answered_is_sent_again() -> None:
    session = Session("ARM", ADDRESS)
    hello = session.greet(S)
    assert hello is not None
    session.greeted(hello, S)
    session.watch(hello.serial, 1.0)
    settle(session.expire(1.0 + HELLO_S, connected=True))
    assert session.greet(2 * S) is not None
    assert not session.is_ready


def test_the_stop_in_force_is_that_of_the_last_reply() -> None:
    session = greeted(TIMED_INFO)
    for stop in (3, 0):
        outgoing = packaged(session, made=100 * S)
        session.receive([encode_reply(Reply(outgoing.serial, 1, clock=500 * S, boot=7, stop=stop)), b"\x01"])
        assert session.stop_in_force == stop


def test_names_leave_room_for_what_a_head_says_beside_them() -> None:
    session = greeted(TIMED_INFO)
    longest = MAX_HEAD
    while True:
        try:
            outgoing = session.package([("x" * longest, (), {})], [Future()], Options(), each=True, made=2**62)
            break
        except BadArguments:
            longest -= 1
    assert longest > MAX_HEAD - 200
    assert len(session.write(outgoing, 101 * S)[0]) <= MAX_HEAD


def test_a_head_that_says_when_it_was_called_is_as_if_it_were_encoded_then() -> None:
    request = Request(RequestKind.PACKAGE, 7, "ARM", ["task_count"], deadline=2.0, idempotent=True)
    for said in ((500 * S, MS, TOKEN, 490 * S), (0, 0, TOKEN, 0), (1, LATEST, b"", LATEST)):
        sent, bound, token, since = said
        whole = msgspec.structs.replace(request, sent=sent, bound=bound, token=token, since=since, values=True)
        assert stamped(encode_request(request), *said) == encode_request(whole)


def test_between_two_looks_no_hello_is_due() -> None:
    session = greeted(TIMED_INFO, now=100 * S)
    assert session.greet_at <= 101 * S
    assert session.greet(101 * S) is None
    assert 101 * S < session.greet_at <= 101 * S + GREET_NS
    session.lose([])
    assert session.greet_at == 0


def test_replies_one_right_after_the_other_are_one_sample() -> None:
    session = greeted(TIMED_INFO, now=100 * S)
    for ms, clock in ((4, 900 * S), (20, 600 * S)):  # the first is too near to the hello's, 2 ms after it was sent
        outgoing = packaged(session, made=100 * S)
        session.write(outgoing, 100 * S + ms * MS)
        reply = Reply(outgoing.serial, 1, clock=clock, boot=7)
        settle(session.receive([encode_reply(reply), b"\x01"], 100 * S + ms * MS + 1))
    sent = decode_request(session.write(packaged(session, made=101 * S), 101 * S)[0]).sent
    assert 600 * S < sent < 602 * S
