"""Wire 0.2 at the client: any reply gives each future a result or one of our errors."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from typing import Any

import msgspec

from taskengine import _fastpath
from taskengine.broker.binary import error_entry
from taskengine.client.requests import Options
from taskengine.client.samples import SubscriptionFilter
from taskengine.client.session import Session
from taskengine.client.task_future import settle
from taskengine.errors import ProtocolError, TaskEngineError, TaskFailed
from taskengine.protocol import layouts, limits
from taskengine.protocol.messages import PartialReply, Reply, ReplyMode, encode_reply
from tests.fuzz.inputs import SEPARATOR, joined, number
from tests.twins import same

MAX_BYTES = 200
TOKENS = [
    *(layouts.MAGIC, SEPARATOR, b"\x95\x01", b"\xc7\x06\x01", b"\xd6\x02", b"\xc0", b"\xcb" + bytes(8)),
    *(b"\xd3" + bytes(8), b"\xd9\x05", b"\xc4\x03", b"\xdc\x00\x02", b"\xde\x00\x01", b"\x03<f8\x01"),
]


def _ext(code: int, data: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, data))


def seeds() -> list[bytes]:
    """A reply of each mode, values of each kind, and a publication."""
    values = [None, True, 2.5, -3, 2**40, "text", b"data", [1, [2]], {"k": {"n": None}}, "x" * 40]
    body = b"".join(map(_fastpath.encode, values))
    failed = error_entry(TaskFailed("it failed", type="ValueError", traceback="…"))
    array = _ext(layouts.ARRAY_EXT, b"\x03<f8\x01" + (2).to_bytes(8, "little") + bytes(16))
    wide = b"\xcb\x40\x04" + bytes(6)
    messages = [
        (0, [encode_reply(Reply(1, 3)), _fastpath.encode(1) + failed + array]),
        (3, [encode_reply(Reply(1, 3)), wide * 3]),
        (3, [encode_reply(Reply(1, 3)), (b"\xd3" + bytes(8)) * 3]),
        (0, [encode_reply(Reply(1, 3, ReplyMode.ERRORS, failed=1)), b"\x02" + failed]),
        (0, [encode_reply(Reply(1, 3, ReplyMode.NONE))]),
        (0, [encode_reply(PartialReply(1, 2, ReplyMode.EACH, first=1, last=False)), _fastpath.encode(1) + failed]),
        (0, [encode_reply(PartialReply(1, 1, ReplyMode.STREAM, first=2, last=False)), _fastpath.encode(1)]),
        (0, [encode_reply(PartialReply(1, 1, ReplyMode.PROGRESS, last=False)), b"\x94\x02\x03\xc0\xa2go"]),
        (0, [encode_reply(PartialReply(1, 3, ReplyMode.EACH, (6, "full", {}), first=0, last=True))]),
        (0, [encode_reply(Reply(1, 0, error=(6, "full", {"retry_after": 0.5})))]),
        (0, [encode_reply(Reply(0, 0, error=(9, "no", {})))]),
        (1, [encode_reply(Reply(1, 1)), _fastpath.encode(values)]),
        (0, [encode_reply(Reply(1, len(values))), body]),
        (0, [encode_reply(Reply(1, 1)), _ext(5, b"five") + b"\xd4\xff\x00"]),
        (0, [encode_reply(Reply(1, 1)), b"\xdd\x00\x00\x00\x02\x01\xdf\x00\x00\x00\x01\xa1k\xc4\x02ab"]),
        (0, [encode_reply(Reply(1, 1)), b"\x91" * 66 + b"\x01"]),
        (0, [encode_reply(Reply(1, 1)), _ext(layouts.ARRAY_EXT, b"\x03<U3\x02" + bytes(16))]),
        (0, [encode_reply(Reply(1, 1)), b"\xd6\xff\x00\x00\x00\x01" + b"\xd9\x02\xc3\xa9"]),
        (
            2,
            [
                b"cpu",
                b'{"id": "DATA-1", "role": "publisher", "pack": 7.5, "part": 3, "clock": 5, "boot": 7}',
                b'{"data": 1.5, "pack": 7.5}',
            ],
        ),
    ]
    return [bytes([mode]) + joined(frames) for mode, frames in messages]


class _Requests(Session):
    """A session with a call, a map, and a map of numbers in flight, all as number 1 to whoever asks."""

    def __init__(self, mode: int) -> None:
        super().__init__("x", limits.DEFAULT_ADDRESS)
        calls: list[Any] = [("t", (1,), {})] * 3
        self.futures: list[Future[Any]] = [Future() for _ in range(1 if mode % 2 else 3)]
        self.package(
            calls[: len(self.futures)] if mode % 2 == 0 else calls, self.futures, Options(), each=mode % 2 == 0
        )
        for pending in self.pending.values():
            pending.array = mode == 3


def fuzz(data: bytes) -> None:
    """A reply, or a publication, as a client gets it."""
    mode = number(data) % 4
    frames = data[1:].split(SEPARATOR)
    if mode == 2:
        _check_publication(frames)
        return
    session = _Requests(mode)
    with contextlib.suppress(ProtocolError):
        settle(session.receive(frames))
    for future in session.futures:
        if future.done():
            error = future.exception()
            assert error is None or isinstance(error, TaskEngineError)
    same("unpack", frames[-1], len(session.futures), bytes)


def _check_publication(frames: list[bytes]) -> None:
    try:
        SubscriptionFilter("*").take(frames)
    except ProtocolError:
        return
