"""What a client has not sent yet, or waits for."""

from __future__ import annotations

from collections import deque

from taskengine.client.call_queue import Calls
from taskengine.client.calls import Call
from taskengine.client.outbox import awaited_futures
from taskengine.client.requests import Options, OutgoingRequest
from taskengine.client.session import Session
from taskengine.client.task_future import TaskFuture

CALL: Call = ("task_count", (2, 3), {})


def test_every_call_without_an_outcome_is_awaited_once_and_the_oldest_is_last() -> None:
    session = Session("ARM", "tcp://127.0.0.1:9000")
    sent, packed, queued = ([TaskFuture(session.retract) for _ in range(2)] for _ in range(3))
    session.package([CALL, CALL], sent, Options(), each=True)
    calls, unsent = Calls(Options(), 0), Calls(Options(), 0)
    calls.entries += [(CALL, future) for future in packed]
    unsent.entries += [(CALL, future) for future in queued]
    outbox: deque[OutgoingRequest | Calls] = deque([*calls.pack(session), calls, unsent])
    assert awaited_futures(session, outbox) == [*queued[::-1], *packed[::-1], *sent[::-1]]
