"""What an engine of an older release gets of a client's values."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from taskengine import _fastpath
from taskengine.client.calls import Call
from taskengine.client.requests import Options, OutgoingRequest
from taskengine.client.session import Session
from taskengine.client.task_future import TaskFuture, settle
from taskengine.errors import BadArguments
from taskengine.protocol.messages import Info, Reply, decode_request, encode_reply
from tests.unit.client.sessions import TIMED_INFO, S, greeted


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
