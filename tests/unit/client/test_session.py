from __future__ import annotations

import contextlib
import math
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from taskengine import _fastpath
from taskengine.broker.binary import error_entry
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
    Overloaded,
    ProtocolError,
    TaskEngineError,
    TaskFailed,
    TaskTimeout,
    to_wire,
)
from taskengine.protocol.limits import MAX_HEAD, MAX_TASKS, REPEATS
from taskengine.protocol.messages import (
    NO_SERIAL,
    Info,
    PartialReply,
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

ADDRESS = "tcp://127.0.0.1:9000"
FAILED = TaskFailed("RuntimeError: boom", type="RuntimeError", traceback="…")


def submitted(number: int, **options: Any) -> tuple[Session, list[Future[Any]]]:
    """A session with one package of calls in flight, one future each."""
    session = Session("ARM", ADDRESS)
    futures: list[Future[Any]] = [Future() for _ in range(number)]
    session.package([("task_count", (2, 3), {})] * number, futures, Options(**options), each=True)
    return session, futures


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


def test_each_future_gets_its_entry() -> None:
    session, futures = submitted(3)
    body = _fastpath.encode(2.5) + error_entry(FAILED) + _fastpath.encode(None)
    settle(session.receive([encode_reply(Reply(1, 3, failed=1)), body]))
    assert futures[0].result(0) == 2.5
    assert isinstance(futures[1].exception(0), TaskFailed)
    assert futures[2].result(0) is None
    assert session.pending == {}


def test_one_future_gets_the_whole_list() -> None:
    session, future = Session("ARM", ADDRESS), Future[Any]()
    session.mapped("task_count", [(2, 3), (4, 5)], future, Options())
    settle(session.receive([encode_reply(Reply(1, 2)), _fastpath.encode(2.5) + _fastpath.encode(4.5)]))
    assert future.result(0) == [2.5, 4.5]


def test_the_first_error_is_raised_or_stands_in_its_place() -> None:
    reply = [encode_reply(Reply(1, 2, failed=1)), _fastpath.encode(2.5) + error_entry(FAILED)]
    for errors in ("raise", "return"):
        session, future = Session("ARM", ADDRESS), Future[Any]()
        session.mapped("task_count", [(2, 3), (4, 5)], future, Options(errors=errors))
        settle(session.receive(reply))
        if errors == "raise":
            assert isinstance(future.exception(0), TaskFailed)
        else:
            assert [isinstance(result, TaskFailed) for result in future.result(0)] == [False, True]


def test_only_errors_are_put_in_their_places() -> None:
    session, futures = submitted(4, reply="errors")
    body = _fastpath.encode(2) + error_entry(FAILED)
    settle(session.receive([encode_reply(Reply(1, 4, ReplyMode.ERRORS, failed=1)), body]))
    assert [future.exception(0) and "failed" for future in futures] == [None, None, "failed", None]


def test_a_refusal_fails_every_future() -> None:
    session, futures = submitted(2)
    refusal = to_wire(Overloaded("the engine is stopping", retry_after=None))
    settle(session.receive([encode_reply(Reply(1, 0, error=refusal))]))
    assert [type(future.exception(0)) for future in futures] == [Overloaded, Overloaded]


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (Reply(1, 2), b""),
        (Reply(1, 2), _fastpath.encode(1) * 3),
        (Reply(1, 2), b"\xc1\xc1"),
        (Reply(1, 2, ReplyMode.ERRORS, failed=1), _fastpath.encode(9) + error_entry(FAILED)),
        (Reply(1, 2, ReplyMode.ERRORS, failed=1), error_entry(FAILED) * 2),
        (Reply(1, 5), _fastpath.encode(1) * 5),
    ],
    ids=["short", "long", "no msgpack", "a place beyond the end", "no place", "another count"],
)
def test_a_reply_that_does_not_fit_is_an_error_for_those_who_wait(reply: Reply, body: bytes) -> None:
    session, futures = submitted(2)
    settle(session.receive([encode_reply(reply), body]))
    assert [type(future.exception(0)) for future in futures] == [ProtocolError, ProtocolError]


def part(first: int, values: list[Any], *, last: bool = False, serial: int = 1) -> list[bytes]:
    """A partial reply of the tasks from `first` on."""
    body = b"".join(
        error_entry(each) if isinstance(each, TaskEngineError) else _fastpath.encode(each) for each in values
    )
    failed = sum(isinstance(each, TaskEngineError) for each in values)
    reply = PartialReply(serial, len(values), ReplyMode.EACH, failed=failed, first=first, last=last)
    return [encode_reply(reply), body]


def test_futures_are_resolved_as_their_tasks_end() -> None:
    session, futures = submitted(5)
    settle(session.receive(part(3, [3.5])))
    assert [future.done() for future in futures] == [False, False, False, True, False]
    settle(session.receive(part(1, [1.5, FAILED])))
    assert (futures[1].result(0), futures[3].result(0)) == (1.5, 3.5)
    assert isinstance(futures[2].exception(0), TaskFailed)
    assert 1 in session.pending
    error = to_wire(Overloaded("the replies before this one were not read", retry_after=None))
    refused = PartialReply(1, 1, ReplyMode.EACH, error, 1, first=0, last=False)
    settle(session.receive([encode_reply(refused)]))
    assert isinstance(futures[0].exception(0), Overloaded)
    settle(session.receive(part(4, [None], last=True)))
    assert futures[4].result(0) is None
    assert session.pending == {}


def test_the_last_partial_reply_leaves_nobody_waiting() -> None:
    session, futures = submitted(3)
    settle(session.receive(part(1, [1.5], last=True)))
    assert [type(future.exception(0)) for future in (futures[0], futures[2])] == [ProtocolError, ProtocolError]
    assert futures[1].result(0) == 1.5
    assert session.pending == {}


@pytest.mark.parametrize(
    "frames",
    [part(2, [1, 2]), part(9, [1]), part(0, [1, 2, 3, 4]), [encode_reply(Reply(1, 2, ReplyMode.EACH)), b""]],
    ids=["beyond the end", "far beyond it", "more than were sent", "without entries"],
)
def test_a_partial_reply_that_does_not_fit_resolves_nothing_wrongly(frames: list[bytes]) -> None:
    session, futures = submitted(3)
    with contextlib.suppress(ProtocolError):
        settle(session.receive(frames))
    assert all(not future.done() or isinstance(future.exception(), ProtocolError) for future in futures)


def test_what_has_one_future_gets_no_partial_reply() -> None:
    session, future = Session("ARM", ADDRESS), Future[Any]()
    session.mapped("task_count", [(2, 3), (4, 5)], future, Options())
    with pytest.raises(ProtocolError, match="0 tasks were sent"):
        session.receive(part(0, [1]))
    assert not future.done()


@pytest.mark.parametrize("capabilities", [[], ["clock"], ["each"], ["clock", "each"]])
def test_results_one_by_one_are_wanted_of_engines_that_give_them(capabilities: list[str]) -> None:
    session = Session("ARM", ADDRESS, b"token")
    calls: list[Call] = [("task_count", (2, 3), {})] * 2
    pair = [Future[Any](), Future[Any]()]
    several = session.package(calls, pair, Options(idempotent=True), each=True, made=S)
    others = [
        session.package(calls[:1], [Future()], Options(), each=True),
        session.package(calls, [Future()], Options(), each=False),
        session.mapped("task_count", [(2, 3), (4, 5)], Future(), Options()),
        session.request(RequestKind.STATS, Future(), Options()),
    ]
    silent = session.package(calls, [Future(), Future()], Options(reply="none"), each=True)
    hello = session.greet(S)
    assert hello is not None
    session.write(hello, S)
    session.greeted(hello, S)
    info = Info(2, 0.03, 3, 2, [], 1, capabilities)
    settle(
        session.receive([encode_reply(Reply(hello.serial, 1, clock=9)), _fastpath.encode(msgspec.to_builtins(info))])
    )
    wanted = ReplyMode.EACH if "each" in capabilities else ReplyMode.ALL
    request = decode_request(session.write(several, S)[0])
    assert request == msgspec.structs.replace(several.request, **{**sending(request), "reply": wanted})
    assert [decode_request(session.write(other, S)[0]).reply for other in others] == [ReplyMode.ALL] * 4
    assert decode_request(session.write(silent, S)[0]).reply == ReplyMode.NONE
    settle(session.receive(part(0, [1.5], serial=several.serial)))
    again = session.lose([several.serial])
    assert again == [several]
    assert decode_request(session.write(several, S)[0]).reply == ReplyMode.ALL, "another engine may be an older one"
    settle(session.receive([encode_reply(Reply(several.serial, 2)), _fastpath.encode(7) * 2]))
    assert [future.result(0) for future in pair] == [1.5, 7]


def sending(request: Request) -> dict[str, Any]:
    """What a head says of its sending."""
    return {name: getattr(request, name) for name in ("sent", "bound", "token", "since", "values")}


@pytest.mark.parametrize("reply", list(ReplyMode))
@pytest.mark.parametrize(("count", "failed"), [(2**62, 0), (MAX_TASKS + 1, 0), (-1, 0), (2, 2**63), (2, -1)])
def test_a_reply_of_more_than_a_package_can_have_is_none(reply: ReplyMode, count: int, failed: int) -> None:
    session, futures = submitted(2)
    with pytest.raises(ProtocolError):
        session.receive([encode_reply(Reply(1, count, reply, failed=failed)), b""])
    assert not any(future.done() for future in futures)


def test_a_reply_to_nothing_resolves_nothing() -> None:
    session, futures = submitted(1)
    assert not session.receive([encode_reply(Reply(99, 1)), b"\x01"])
    assert not futures[0].done()


def test_what_gave_up_waiting_is_passed_over() -> None:
    session, futures = submitted(1)
    session.forget(1)
    assert not session.receive([encode_reply(Reply(1, 1)), b"\x01"])
    session, futures = submitted(1)
    futures[0].cancel()
    settle(session.receive([encode_reply(Reply(1, 1)), b"\x01"]))
    assert futures[0].cancelled()


def test_what_is_cancelled_just_before_it_is_resolved_is_passed_over() -> None:
    class Racing(Future[Any]):
        def done(self) -> bool:
            return False  # as it was a moment ago

    futures = [Racing(), Future[Any]()]
    futures[0].cancel()
    settle(deque((future, 1) for future in futures))
    assert futures[0].cancelled()
    assert futures[1].result(0) == 1


def test_a_callback_that_raises_more_than_an_exception_costs_nobody_an_outcome() -> None:
    futures = [Future[Any]() for _ in range(3)]
    futures[1].add_done_callback(lambda _: sys.exit(1))
    outcomes = deque((future, 1) for future in futures)
    with pytest.raises(SystemExit):
        settle(outcomes)
    settle(outcomes)
    assert [future.result(0) for future in futures] == [1, 1, 1]


def test_who_waits_is_woken_although_the_one_that_resolves_is_stopped_before_it_does() -> None:
    future = Future[Any]()
    outcomes = deque([(future, 1)])
    future._condition.notify_all = Mock(side_effect=[KeyboardInterrupt, None])  # type: ignore[method-assign]  # fails once
    with pytest.raises(KeyboardInterrupt):
        settle(outcomes)
    settle(outcomes)
    assert future._condition.notify_all.call_count == 2
    assert not outcomes


def test_a_callback_may_settle_the_others() -> None:
    futures = [Future[Any]() for _ in range(3)]
    outcomes = deque((future, 1) for future in futures)
    futures[0].add_done_callback(lambda _: settle(outcomes))
    settle(outcomes)
    assert [future.result(0) for future in futures] == [1, 1, 1]


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


MS = 10**6
S = 10**9
TOKEN = b"t" * 16
TIMED_INFO = Info(2, 0.03, 3, 2, [], 1, ["clock", "stop"])


def greeted(info: Any, *, engine_clock: int = 500 * S, now: int = 100 * S) -> Session:
    """A session that has sent its hello at `now`, and got `info` or an error for it 2 ms later."""
    session = Session("ARM", ADDRESS, TOKEN, since=90 * S)
    hello = session.greet(now)
    assert hello is not None
    session.write(hello, now)
    session.greeted(hello, now)
    error = to_wire(info) if isinstance(info, TaskEngineError) else None
    body = b"" if error else _fastpath.encode(msgspec.to_builtins(info))
    reply = Reply(hello.serial, 0 if error else 1, error=error, clock=engine_clock, boot=7)
    settle(session.receive([encode_reply(reply), body], now + 2 * MS))
    return session


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


def sent_tasks(session: Session, outgoing: OutgoingRequest, *, values: bool) -> list[Any]:
    """The tasks in what is sent; the head says whether the engine is to give Python's other values."""
    head, index, body = session.write(outgoing, 101 * S)
    assert decode_request(head).values == values or not values
    return _fastpath.unpack(body, len(index) // 4, bytes, values)


VALUES_INFO = Info(2, 0.03, 3, 2, [], 1, ["clock", "stop", "values"])
CELLS: list[Call] = [("a", ((1, 2),), {}), ("b", (), {"k": {3}}), ("a", (1,), {})]


def test_an_engine_gets_other_values_once_it_has_said_that_it_takes_them() -> None:
    session = greeted(VALUES_INFO, now=100 * S)
    outgoing = session.package(CELLS, [Future() for _ in CELLS], Options(), each=True)
    assert sent_tasks(session, outgoing, values=True) == [[0, [(1, 2)]], [1, [], {"k": {3}}], [0, [1]]]
    reply = [encode_reply(Reply(outgoing.serial, 1)), _fastpath.encode((1, {2}), True)]
    session.pending[outgoing.serial].futures = [future := Future[Any]()]
    settle(session.receive(reply))
    assert future.result(0) == (1, {2})
    again = session.package(CELLS, [Future() for _ in CELLS], Options(), each=True)
    session.lose([])
    assert sent_tasks(session, again, values=False) == [[0, [[1, 2]]], [1, [], {"k": [3]}], [0, [1]]]


def test_an_older_engine_gets_lists_and_text() -> None:
    for capabilities in (["clock"], []):
        session = greeted(msgspec.structs.replace(TIMED_INFO, capabilities=capabilities))
        outgoing = session.package(CELLS, [Future() for _ in CELLS], Options(idempotent=True), each=True)
        assert sent_tasks(session, outgoing, values=False) == [[0, [[1, 2]]], [1, [], {"k": [3]}], [0, [1]]]
        mapped = session.mapped("a", [[(1,)], [2]], Future(), Options())
        assert sent_tasks(session, mapped, values=False) == [[0, [[1], 2]]]
        # an extension of a program's own is nothing of ours there
        reply = [encode_reply(Reply(outgoing.serial, 3)), 3 * msgspec.msgpack.encode(msgspec.msgpack.Ext(3, b"\x90"))]
        assert [type(value) for _, value in session.receive(reply)] == [msgspec.msgpack.Ext] * 3


def test_calls_that_an_older_engine_does_not_take_fail_alone() -> None:
    session = greeted(TIMED_INFO, now=100 * S)
    futures: list[Future[Any]] = [TaskFuture(Mock()) for _ in range(4)]
    calls: list[Call] = [("a", (1j,), {}), ("a", (1,), {}), ("b", (2**64,), {}), ("b", (2,), {})]
    outgoing = session.package(calls, futures, Options(idempotent=True), each=True)
    assert sent_tasks(session, outgoing, values=False) == [[0, [1]], [1, [2]]]
    settle(session.outcomes)
    assert [isinstance(future.done() and future.exception(0), BadArguments) for future in futures] == [True, False] * 2
    assert [future.position for future in futures[1::2] if isinstance(future, TaskFuture)] == [0, 1]
    assert [again.serial for again in session.lose([outgoing.serial])] == [outgoing.serial]
    settle(session.receive([encode_reply(Reply(outgoing.serial, 2)), b"\x07\x08"]))
    assert [future.result(0) for future in futures[1::2]] == [7, 8]


@pytest.mark.parametrize("each", [True, False])
def test_a_package_with_nothing_that_an_older_engine_takes_is_not_sent(each: bool) -> None:
    session, future = greeted(TIMED_INFO, now=100 * S), Future[Any]()
    calls: list[Call] = [("a", (1j,), {})] if each else [("a", (1,), {}), ("a", (1j,), {})]
    outgoing = session.package(calls, [future], Options(), each=each)
    assert session.write(outgoing, 101 * S) == []
    settle(session.outcomes)
    assert isinstance(future.exception(0), BadArguments)
    assert outgoing.serial not in session.pending


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
