"""Reads the frames of partial replies as the router's relays give them to an outlet."""

from __future__ import annotations

from taskengine.broker.package import Message
from taskengine.protocol.messages import PartialReply, decode_reply


def read_partial(frames: Message) -> tuple[PartialReply, list[bytes]]:
    """Return the head of a partial reply, and its bodies, which are none where it has no entries."""
    head, *rest = frames
    assert isinstance(head, bytes)
    reply = decode_reply(head)
    assert isinstance(reply, PartialReply)
    bodies = rest[0] if rest else []
    assert isinstance(bodies, list)
    return reply, bodies
