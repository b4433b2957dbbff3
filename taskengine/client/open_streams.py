"""The beginning and the end of a client's streams."""

from __future__ import annotations

from taskengine.client.calls import Call
from taskengine.client.requests import Options, OutgoingRequest, Pending
from taskengine.client.session import STREAMS, Session
from taskengine.client.stream_requests import as_stream, too_old
from taskengine.client.values import ValueBuffer
from taskengine.protocol.messages import encode_request


def begin_stream(
    session: Session, address: str, call: Call, values: ValueBuffer, options: Options, made: int
) -> OutgoingRequest:
    """Pack a call, made at `made`, of which the values are wanted as they come.

    Raises BadArguments for arguments that cannot be sent, ProtocolError for an engine, at `address`, without streams.
    """
    if session.is_ready and not session.can(STREAMS):
        raise too_old(address, session.info.release if session.info else "")
    outgoing = session.package([call], [values.end], options, each=True, made=made)
    # it has no timeout in all, and cannot be sent again
    listener = options.progress
    session.pending[outgoing.serial] = Pending([values.end], True, False, None, values=values, listener=listener)
    request = as_stream(outgoing.request, values.window.grant, progress=listener is not None)
    return outgoing._replace(request=request, head=encode_request(request))


def drop_abandoned(session: Session) -> None:
    """Have the engine cancel the streams that nobody reads any more."""
    while session.abandoned:
        serial = session.abandoned.popleft()
        if session.pending.pop(serial, None) is not None:
            session.retract(serial, None)
