"""Requests of streams, and the replies to them, for the session. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from taskengine import _fastpath
from taskengine.client.task_future import Outcome
from taskengine.client.values import ValueBuffer
from taskengine.errors import ProtocolError, TaskEngineError, from_wire
from taskengine.protocol.credit import Grant
from taskengine.protocol.messages import PartialReply, ReplyMode, Request, StreamRequest, WatchedStream, encode_request
from taskengine.protocol.release import lacks


def too_old(address: str, engine_release: str) -> TaskEngineError:
    """Return the error of a stream that an engine cannot give."""
    return ProtocolError(f"{address}: {lacks(engine_release, 'has no streams')}, or `call` the task")


def as_stream(request: Request, grant: Grant, *, progress: bool = False) -> StreamRequest:
    """Return the request for the values of its only task; `grant` is the credit with which it begins.

    It asks for the task's `progress` too, if that is wanted.
    """
    fields = msgspec.structs.asdict(request) | {"reply": ReplyMode.STREAM}
    kind = partial(WatchedStream, progress=True) if progress else StreamRequest
    return kind(**fields, most=grant.values, most_bytes=grant.bytes)


def stamped_stream(request: Request, stamp: Mapping[str, Any]) -> bytes:
    """Encode the head of a stream's request with its sending time and the client object."""
    return encode_request(msgspec.structs.replace(request, **stamp))


def take_values(reply: PartialReply, body: bytes, values: ValueBuffer, *, takes: bool = False) -> list[Outcome]:
    """Put the values of a reply into the buffer; return the outcome of the stream's end, if the reply is the last.

    `takes` says that Python's other values may be in it. Raises ProtocolError for a malformed reply.
    """
    if reply.reply is not ReplyMode.STREAM:
        raise ProtocolError("a stream is answered in another reply mode")
    if reply.count:
        values.put(reply.first, _fastpath.unpack(body, reply.count, _no_error, takes), len(body))
    if not reply.last:
        return []
    return [(values.end, None if reply.error is None else from_wire(*reply.error))]


def _no_error(data: bytes) -> Any:
    raise ProtocolError("a value of a stream is no error")
