"""Partial replies for a caller who wants all results together give what one reply would have given."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy
import pytest

from taskengine import _fastpath
from taskengine.broker.binary import error_entry
from taskengine.client.gathering import Gathering
from taskengine.client.reports import announce
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.client.task_future import settle
from taskengine.errors import Overloaded, ProtocolError, TaskFailed, to_wire
from taskengine.protocol.messages import Info, PartialReply, Reply, ReplyMode, decode_request, encode_reply

FAILED = TaskFailed("ValueError: no", type="ValueError", traceback="…")


def part(first: int, *values: Any, last: bool = False, failed: int = 0) -> tuple[PartialReply, bytes]:
    body = b"".join(
        error_entry(value) if isinstance(value, TaskFailed) else _fastpath.encode(value) for value in values
    )
    return PartialReply(1, len(values), ReplyMode.EACH, failed=failed, first=first, last=last), body


def test_it_is_one_reply_in_the_end() -> None:
    moves: list[int] = []
    gathering = Gathering(4, moves.append)
    for reply, body in part(3, "d"), part(0, "a", "b"), part(2, FAILED, failed=1, last=True):
        gathering.take(reply, body)
    assert gathering.ended == 4
    whole, body = gathering.whole(1)
    assert whole == Reply(1, 4, failed=1)
    found = _fastpath.unpack(body, 4, lambda data: "failed")
    assert found == ["a", "b", "failed", "d"]


def test_what_came_twice_counts_once_and_what_is_missing_is_told() -> None:
    gathering = Gathering(3, lambda ended: None)
    for _ in range(2):
        gathering.take(*part(0, 1))
    gathering.take(*part(2, 3))
    assert gathering.ended == 2
    with pytest.raises(ProtocolError, match="none of them had task 1"):
        gathering.whole(1)
    assert gathering.clear() == 2
    for first in range(3):
        gathering.take(*part(first, first))
    assert gathering.whole(1)[1] == b"\x00\x01\x02"


def test_replies_of_another_kind_are_refused() -> None:
    gathering = Gathering(2, lambda ended: None)
    with pytest.raises(ProtocolError):
        gathering.take(*part(1, 1, 2))
    with pytest.raises(ProtocolError):
        gathering.take(PartialReply(1, 1, ReplyMode.STREAM), b"\x01")


class Engine:
    """A session with a package that is gathered, and how its bar has moved."""

    def __init__(
        self, number: int, options: Options | None = None, *, each: bool = True, columns: bool = False
    ) -> None:
        self.session = Session("ARM", "tcp://127.0.0.1:9000")
        self.learn(each=each)
        self.future: Future[Any] = Future()
        column = numpy.arange(float(number)) if columns else range(number)
        self.outgoing = self.session.mapped("survey", [column], self.future, options or Options())
        self.moves: list[int] = []
        self.session.pending[self.outgoing.serial].gathering = Gathering(number, self.moves.append)

    def learn(self, *, each: bool = True) -> None:
        self.session._learn(Info(2, 0.005, 10, 2, [], 1, ["clock", *["each"] * each]))

    def mode(self) -> ReplyMode:
        return decode_request(self.session.write(self.outgoing, 5)[0]).reply

    def receive(self, reply: Reply, body: bytes = b"") -> None:
        self.session.receive([encode_reply(reply), *([body] if body else [])])
        announce(self.session.reports)
        settle(self.session.outcomes)


def test_each_is_asked_for_where_the_engine_gives_it() -> None:
    assert Engine(3).mode() is ReplyMode.EACH
    assert Engine(3, each=False).mode() is ReplyMode.ALL
    assert Engine(3, Options(reply="errors")).mode() is ReplyMode.ERRORS


def test_the_bar_moves_and_the_list_comes_at_the_end() -> None:
    engine = Engine(3)
    engine.receive(*part(1, "b", "c"))
    assert (engine.moves, engine.future.done()) == ([2], False)
    engine.receive(*part(0, "a", last=True))
    assert (engine.moves, engine.future.result()) == ([2, 1], ["a", "b", "c"])
    assert not engine.session.pending


def test_an_older_engines_reply_serves_as_well() -> None:
    engine = Engine(2, each=False)
    engine.receive(Reply(1, 2), b"\x01\x02")
    assert (engine.moves, engine.future.result()) == ([], [1, 2])


def test_columns_become_an_array() -> None:
    engine = Engine(2, columns=True)
    engine.receive(*part(1, 1.5))
    engine.receive(*part(0, 0.5, last=True))
    assert isinstance(engine.future.result(), numpy.ndarray)
    assert engine.future.result().tolist() == [0.5, 1.5]


def test_an_error_is_raised_or_returned() -> None:
    engine = Engine(2)
    engine.receive(*part(1, 1.5))
    engine.receive(*part(0, FAILED, last=True, failed=1))
    assert isinstance(engine.future.exception(), TaskFailed)
    returning = Engine(2, Options(errors="return"))
    unread = to_wire(Overloaded("not read", retry_after=None))
    returning.receive(PartialReply(1, 2, ReplyMode.EACH, unread, 2, first=0, last=True))
    assert [type(error) for error in returning.future.result()] == [Overloaded, Overloaded]


def test_an_end_that_comes_too_soon_is_an_error_for_all() -> None:
    engine = Engine(3)
    engine.receive(*part(0, 1, last=True))
    assert isinstance(engine.future.exception(), ProtocolError)
    assert not engine.session.pending


def test_nothing_to_do_is_done_at_once() -> None:
    engine = Engine(0)
    engine.receive(PartialReply(1, 0, ReplyMode.EACH, last=True))
    assert engine.future.result() == []


def test_a_package_that_is_sent_again_takes_its_bar_back() -> None:
    engine = Engine(2, Options(idempotent=True))
    engine.receive(*part(0, 1))
    assert engine.session.lose([1]) == [engine.outgoing]
    engine.learn(each=False)
    engine.receive(Reply(1, 2), b"\x05\x06")
    assert (engine.moves, engine.future.result()) == ([1, -1], [5, 6])
