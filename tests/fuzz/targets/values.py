"""Python's other values: any bytes are read as the model reads them, and what was read can be sent and comes back."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from taskengine import _fastpath
from taskengine.errors import ProtocolError
from taskengine.protocol import layouts
from tests import model
from tests.batches import join_frames, section_of
from tests.fuzz.inputs import number
from tests.twins import same, turn

MAX_BYTES = 160
VALUES, TASK = range(2)
"""What an input's first byte says: values of a reply, or the arguments of a task, and with which reply mode."""
NEVER_EQUAL = ("nan", "array", "ext object")
"""In the text of values that are equal to none, not even to themselves."""
TOKENS = [
    *(bytes([0xC7, 3, code, 0x92, 1, 2]) for code in layouts.ValueExt),
    *(b"\xd4\x03\x90", b"\xd4\x06\x80", b"\xd8\x07" + bytes(16), b"\xd8\x09" + bytes(16), b"\xc7\x0c\x0d" + bytes(12)),
    *(b"\xc7\x0a\x0b2026-11-30", b"\xd7\x0c07:30:00", b"\xd6\x081.10", b"\xc8\x00\x03\x03\x90", b"\xc9\x00\x00\x00"),
]


def seeds() -> list[bytes]:
    """Each kind of value, alone and in others, and some that are malformed."""
    values: list[Any] = [
        *((1, "two"), (), ((), [()]), {1, 2}, frozenset({(1, 2)}), {(0, 1): "wall"}, 2**64, -(2**63) - 1, 1.5 - 2j),
        *(Decimal("1.10"), Decimal("NaN"), UUID(int=5), datetime.datetime(2026, 11, 30, 12, 35, 0, 250000)),
        *(datetime.date(2026, 11, 30), datetime.time(7, 30), datetime.timedelta(-1, 2, 3)),
        *(datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC), datetime.time(7, tzinfo=datetime.UTC), ("x" * 70,)),
    ]
    packed = [bytes(_fastpath.encode(value, True)) for value in values]
    broken = [b"\xd4\x0e\x00", b"\xd5\x04\x91\x90", b"\xd6\x08sNaN", b"\xd5\x05\x91\x80", b"\xc7\x00\x06"]
    return [
        *(bytes([VALUES]) + data for data in (*packed, *broken)),
        *(bytes([TASK + 2 * reply]) + b"".join(packed[:4]) for reply in range(3)),
        bytes([TASK]) + b"".join(packed[4:]),
    ]


def fuzz(data: bytes) -> None:
    """Values end to end, as many as there are."""
    mode, data = number(data), data[1:]
    count = _count(data)
    for typed in (True, False):
        same("unpack", data, count, bytes, typed)
    same("unpack", bytes([0xC7, min(len(data), 255), layouts.ValueExt.FROZENSET]) + data[:255], 1, bytes, True)
    if mode % 2 == TASK:
        task = b"\x92\x00" + bytes([0x90 | min(count, 15)]) + data
        for flag in (layouts.VALUES_FLAG, 0):
            section = section_of(join_frames([task]), reply=(mode >> 1) % 3 | flag, head=b"h")
            batch = model.pack_batch(1, 0, [section])
            assert turn(_fastpath, batch) == turn(model, batch)
        return
    _check_the_way_back(data, count)


def _count(data: bytes) -> int:
    """How many values there are before something that is none."""
    at = count = 0
    try:
        while at < len(data):
            at = model.end_of(data, at, typed=True)
            count += 1
    except ProtocolError:
        pass
    return count


def _check_the_way_back(data: bytes, count: int) -> None:
    """What was read is sent as it is, and is read from that as before."""
    try:
        values = _fastpath.unpack(data, count, bytes, True)
    except ProtocolError:
        return
    told = same("encode", values, True)
    if told[0] == "gave" and not any(mark in repr(values).lower() for mark in NEVER_EQUAL):
        assert _fastpath.unpack(_fastpath.encode(values, True), 1, bytes, True) == [values]
