"""What replies make of the futures of a package: whole ones, refusals, partial ones, and those that do not fit."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

from taskengine import _fastpath
from taskengine.broker.binary import error_entry
from taskengine.client.calls import Call
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.client.task_future import settle
from taskengine.errors import Overloaded, ProtocolError, TaskEngineError, TaskFailed, to_wire
from taskengine.protocol.limits import MAX_TASKS
from taskengine.protocol.messages import (
    Info,
    PartialReply,
    Reply,
    ReplyMode,
    Request,
    RequestKind,
    decode_request,
    encode_reply,
)
from tests.unit.client.sessions import ADDRESS, FAILED, S, submitted


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
    """The fields of a head about its sending."""
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
