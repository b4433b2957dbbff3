"""Publications in binary form: values travel as they are, bytes and arrays in a frame of their own. Pure.

A binary publication is `[BINARY_TOPICS + topic, HEAD, BODY]`; docs/protocol.md has the bytes. BINARY_TOPICS begins with
a byte that no text in UTF-8 has, so that no subscription to text matches a binary publication.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Any, Final

import msgspec

from taskengine.protocol.arrays import decoded, encoded

BINARY_TOPICS: Final = b"\xff\x02"
"""The beginning of the first frame of binary publications, and of subscriptions to them: no UTF-8, and the wire's 2."""
TEXT_STARTS: Final = tuple(bytes([byte]) for byte in (*range(0x80), *range(0xC2, 0xF5)))
"""The bytes with which UTF-8 can begin. Together these prefixes match every topic, and no binary publication."""
_PLAIN_KINDS: Final = "biuf"
"""The kinds of numpy's dtypes of which JSON can have every array."""


class Form(IntEnum):
    """The forms of the BODY of a binary publication."""

    MSGPACK = 0
    """A value in MessagePack."""
    BYTES = 1
    """The bytes that were published."""
    ARRAY = 2
    """A numpy array: the data of its extension, as docs/protocol.md has it."""
    JSON = 3
    """A value that MessagePack cannot hold, in JSON."""


class PublicationHead(msgspec.Struct, array_like=True, frozen=True):
    """The HEAD of a binary publication.

    `id` is the data worker, and `part` the number of the publication under it. `publisher` made the value at `clock`,
    in ns of the engine's clock since `boot`, or `pack`, in s of the wall clock. `dropped` publications of this topic
    were replaced by newer ones at the data worker, under this `id`, before they could be sent.
    """

    id: str
    part: int
    publisher: str
    pack: float
    clock: int
    boot: int
    dropped: int
    form: Form


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PublicationHead).decode


def encode_head(head: PublicationHead) -> bytes:
    """Return the HEAD as MessagePack."""
    return _encode(head)


def decode_head(frame: bytes) -> PublicationHead:
    """Return the HEAD in a frame. Raises msgspec.MsgspecError."""
    return _decode(frame)


def plain_body(value: Any) -> tuple[Form, bytes] | None:
    """Return form and BODY of bytes, or of an array of plain numbers; None for any other value."""
    if type(value) is bytes:
        return Form.BYTES, value
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or value.dtype.kind not in _PLAIN_KINDS:
        return None
    try:
        return Form.ARRAY, bytes(encoded(value).data)
    except TypeError:  # its numbers differ from processor to processor
        return None


def plain_value(form: Form, body: bytes) -> Any:
    """Return the bytes, or the array, in a BODY of that form. Raises ProtocolError."""
    return decoded(body) if form is Form.ARRAY else body


def text_prefixes(prefix: bytes) -> tuple[bytes, ...]:
    """Return the prefixes that a subscription to `prefix` stands for: all but binary publications match.

    The empty prefix stands for every beginning of a text; one that no text begins with stands for none.
    """
    if not prefix:
        return TEXT_STARTS
    return () if prefix[:1] == BINARY_TOPICS[:1] else (prefix,)
