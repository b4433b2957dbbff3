from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future
from typing import Any

from taskengine.client.call_queue import CallQueue, Calls
from taskengine.client.calls import Call
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.client.task_future import settle
from taskengine.errors import BadArguments
from taskengine.protocol.messages import Info, decode_request

CALL: Call = ("task_count", (2, 3), {})
INFO = Info(2, 0.03, 3, 2, [], 1)


def queue() -> CallQueue:
    made = CallQueue()
    made.learn(INFO)
    return made


def packed(made: CallQueue) -> list[list[bytes]]:
    """The frames of the packages of what is queued."""
    session = Session("ARM", "tcp://127.0.0.1:9000")
    frames = [outgoing.frames for calls in taken(made) for outgoing in calls.pack(session)]
    settle(session.outcomes)
    return frames


def taken(made: CallQueue) -> deque[Calls]:
    outbox: deque[Calls] = deque()
    made.move(outbox)
    return outbox


def test_it_is_due_a_response_time_after_the_first_call() -> None:
    made = queue()
    assert made.due(5.0) == math.inf
    assert made.add(CALL, Future(), Options(), now=10.0) is True
    assert made.add(CALL, Future(), Options(), now=10.02) is False
    assert made.due(10.02) == 10.03 - 10.02
    assert made.due(11.0) == 0.0


def test_a_full_load_is_due_at_once() -> None:
    made = queue()
    changed = [made.add(CALL, Future(), Options(), now=10.0) for _ in range(6)]
    assert changed == [True, False, False, False, False, True]
    assert made.due(10.0) == 0.0


def test_a_call_joins_those_with_the_same_options_where_nothing_becomes_due_by_it() -> None:
    made, options = queue(), Options()
    joined = []
    for _ in range(9):
        joined.append(made.join(CALL, Future(), options))
        if not joined[-1]:
            made.add(CALL, Future(), options, now=10.0)
    assert joined == [
        False,
        True,
        True,
        True,
        True,
        False,
        True,
        True,
        True,
    ]  # the first, and the one that fills a load
    assert not made.join(CALL, Future(), Options(reply="none"))
    (calls,) = taken(made)
    assert len(calls.entries) == 9


def test_what_is_taken_is_one_package_for_neighbours_that_are_sent_alike() -> None:
    made = queue()
    for reply in ("all", "all", "none", "all"):
        made.add(CALL, Future(), Options(reply=reply), now=10.0)
    packages = packed(made)
    assert [len(index) // 4 for _, index, _ in packages] == [2, 1, 1]
    assert [decode_request(head).reply for head, _, _ in packages] == [0, 2, 0]
    assert (list(taken(made)), made.due(10.0)) == ([], math.inf)


def test_a_call_that_cannot_be_sent_fails_alone() -> None:
    made, futures = queue(), [Future[Any]() for _ in range(3)]
    for future, value in zip(futures, (1, object(), 2), strict=True):
        made.add(("task_echo", (value,), {}), future, Options(), now=10.0)
    assert len(packed(made)) == 2
    assert isinstance(futures[1].exception(0), BadArguments)
    assert not futures[0].done()


def test_a_cancelled_call_is_not_sent() -> None:
    made, futures = queue(), [Future[Any](), Future[Any]()]
    for future in futures:
        made.add(CALL, future, Options(), now=10.0)
    futures[0].cancel()
    ((_, index, _),) = packed(made)
    assert len(index) == 4
    assert futures[1].running()


def test_a_call_whose_future_was_resolved_by_others_is_not_sent() -> None:
    made, futures = queue(), [Future[Any](), Future[Any]()]
    for future in futures:
        made.add(CALL, future, Options(), now=10.0)
    futures[0].set_result("by hand")
    ((_, index, _),) = packed(made)
    assert len(index) == 4


def test_one_that_was_interrupted_may_pack_again() -> None:
    made, future = queue(), Future[Any]()
    made.add(CALL, future, Options(), now=10.0)
    (calls,) = taken(made)
    session = Session("ARM", "tcp://127.0.0.1:9000")
    assert [len(calls.pack(session)), len(calls.pack(session))] == [1, 1]
