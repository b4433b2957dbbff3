"""A client's unsent requests, and calls that are not packed into requests yet. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from taskengine.client.call_queue import Calls
from taskengine.client.requests import OutgoingRequest
from taskengine.client.session import Session
from taskengine.errors import TaskEngineError
from taskengine.protocol.messages import ReplyMode


def fail_unsent(session: Session, unsent: Iterable[OutgoingRequest | Calls], error: TaskEngineError) -> None:
    """Fail all of it: none will be answered."""
    for item in unsent:
        if isinstance(item, Calls):
            session.outcomes.extend([(future, error) for _, future in item.entries])
        else:
            session.fail([item.serial], error)


def count_nobodys(session: Session, unsent: Iterable[OutgoingRequest | Calls]) -> int:
    """Return how many of the calls nobody waits for, so that their loss would go unnoticed."""
    count = 0
    for item in unsent:
        if isinstance(item, Calls):
            count += len(item.entries) if item.options.reply == "none" else 0
        elif item.serial in session.pending and item.request.reply is ReplyMode.NONE:
            count += len(session.pending[item.serial].futures)
    return count


def unpack(
    outbox: deque[OutgoingRequest | Calls], outgoing: deque[OutgoingRequest], session: Session, now: float
) -> None:
    """Move everything from the outbox to the requests to send, with queued calls packed into requests.

    It may be interrupted after any call (see `client/transport.py`), and goes on when it is called again.
    """
    while outbox:
        item = outbox[0]
        if isinstance(item, OutgoingRequest):
            del outbox[0]
            outgoing.append(item)
            continue
        requests = item.pack(session)
        for request in requests:
            session.watch(request.serial, now)
        del outbox[0]
        outgoing.extend(requests)


def awaited_futures(session: Session, unsent: Iterable[OutgoingRequest | Calls]) -> list[Future[Any]]:
    """Return the futures that have no outcome yet, each once, the oldest last."""
    pending = [future for each in list(session.pending.values()) for future in each.futures]
    queued = [future for calls in unsent if isinstance(calls, Calls) for _, future in calls.entries]
    return list(dict.fromkeys([*pending, *queued]))[::-1]
