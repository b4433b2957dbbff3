"""A client's requests: how they are sent, and what is kept of them until their replies come. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec

from taskengine.client.gathering import Gathering
from taskengine.client.reports import Listener
from taskengine.client.values import ValueBuffer
from taskengine.errors import BadArguments
from taskengine.protocol.credit import DEFAULT_VALUES, MAX_VALUES
from taskengine.protocol.layouts import COUNT
from taskengine.protocol.limits import REPEATS
from taskengine.protocol.messages import Priority, ReplyMode, Request

REPLIES = {kind.name.lower(): kind for kind in (ReplyMode.ALL, ReplyMode.ERRORS, ReplyMode.NONE)}
PRIORITIES = {kind.name.lower(): kind for kind in Priority}
"""The names of reply modes and priorities, as callers give them."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a package is sent.

    `timeout` is how long the client waits, and `deadline` within which time the engine must start a task, both in s.
    `reply` selects which replies come: all, errors or none. With `errors` "return", `map` returns errors as values.
    A stream's task is at most `ahead` values ahead of its reader. `progress` is called with what tasks say of theirs.
    """

    timeout: float | None = 60.0
    deadline: float | None = None
    priority: str = "normal"
    reply: str = "all"
    idempotent: bool = False
    errors: str = "raise"
    ahead: int = DEFAULT_VALUES
    progress: Listener | None = None

    def __post_init__(self) -> None:
        choices = {
            "priority": (self.priority, list(PRIORITIES)),
            "reply": (self.reply, list(REPLIES)),
            "errors": (self.errors, ["raise", "return"]),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise BadArguments(f"{name} is one of {', '.join(known)}, not {value!r}", name=name)
        for name, seconds in (("timeout", self.timeout), ("deadline", self.deadline)):
            is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
            if seconds is not None and not (is_number and seconds > 0):
                raise BadArguments(f"{name} is a positive number of seconds or None, not {seconds!r}", name=name)
        if not (isinstance(self.ahead, int) and 1 <= self.ahead <= MAX_VALUES):
            raise BadArguments(f"ahead is a number of values from 1 to {MAX_VALUES}, not {self.ahead!r}", name="ahead")
        if not (self.progress is None or callable(self.progress)):
            raise BadArguments(f"progress is a function or None, not {self.progress!r}", name="progress")
        if not isinstance(self.idempotent, bool):
            raise BadArguments(f"idempotent is True or False, not {self.idempotent!r}", name="idempotent")


class OutgoingRequest(NamedTuple):
    """A request ready to send; `head` belongs to `request`, which gets its sending time only when it goes out.

    `made` is when the call was made, in ns of the client's clock; 0 if that does not matter.
    """

    serial: int
    request: Request
    head: bytes
    body: tuple[bytes, ...]
    made: int = 0

    @property
    def tasks(self) -> int:
        """The number of its tasks, if it is a package."""
        index, body = self.body
        return len(body) // (8 * len(index) or 1) if self.request.columns else len(index) // COUNT.size

    @property
    def frames(self) -> list[bytes]:
        """Return the frames without a sending time, for an engine of version 0.1.0."""
        return [self.head, *self.body]


class Pending(msgspec.Struct):
    """A request without its reply: each future takes its own entry, or the only one the list, or its first error.

    `timeout` is how long its sender waits, in s, or None for ever; with `array` the list is an array if possible.
    `outgoing` is kept for requests that may be sent again after their connection is lost, at most `resends` times.
    `written` is when it was sent last, in ns of the client's clock, and `answered` how many of its tasks were answered
    by partial replies since. A stream has `values`, and its only future is their end. A package that `is_watched` is
    told what its tasks say of their progress, and so is its `listener`. One that has a `gathering` gets partial replies
    for the only future.
    """

    futures: Sequence[Future[Any]]
    each: bool
    raises: bool
    timeout: float | None
    array: bool = False
    outgoing: OutgoingRequest | None = None
    resends: int = REPEATS
    written: int = 0
    answered: int = 0
    values: ValueBuffer | None = None
    is_watched: bool = False
    listener: Listener | None = None
    gathering: Gathering | None = None
