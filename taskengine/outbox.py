"""What a client has not sent yet: parcels, and calls that are no parcels yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from taskengine.errors import TaskEngineError
from taskengine.messages import ReplyMode
from taskengine.queue import Calls
from taskengine.session import Parcel, Session


def fail_unsent(session: Session, unsent: Iterable[Parcel | Calls], error: TaskEngineError) -> None:
    """None of it will be answered."""
    for item in unsent:
        if isinstance(item, Calls):
            session.outcomes.extend([(future, error) for _, future in item.entries])
        else:
            session.fail([item.serial], error)


def count_nobodys(session: Session, unsent: Iterable[Parcel | Calls]) -> int:
    """Return how many of the calls nobody waits for, so that nobody would be told that they were lost."""
    count = 0
    for item in unsent:
        if isinstance(item, Calls):
            count += len(item.entries) if item.options.reply == "none" else 0
        elif item.serial in session.pending and item.request.reply is ReplyMode.NONE:
            count += len(session.pending[item.serial].futures)
    return count
