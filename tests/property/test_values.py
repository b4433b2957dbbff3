"""Python's values on the wire: what is sent comes back equal or is refused, and the compiled code does what its model
does, for values, for calls and for any bytes."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import struct
import sys
from collections import Counter, OrderedDict, namedtuple
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskengine import _fastpath
from taskengine.errors import BadArguments
from taskengine.protocol import layouts, limits
from tests import model
from tests.batches import join_frames, no_error, section_of
from tests.emulation import examples
from tests.property.test_fastpath_model import any_bytes, damaged, messages
from tests.twins import outcome, same, turn

Pair = namedtuple("Pair", ["a", "b"])


class Color(enum.Enum):
    RED = 1
    PAIR = (1, 2)


class Level(enum.IntEnum):
    LOW = 0


class Text(str):
    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any = (1, 2)


class Leg(msgspec.Struct, tag=True, rename="camel"):
    knee_angle: Any
    foot: Any = msgspec.UNSET


hashable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas(),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=4,
)
exact = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.sets(hashable, max_size=5)
        | st.dictionaries(hashable, inner, max_size=5)
    ),
    max_leaves=8,
)
"""What comes back equal, and of the same types."""
odd = st.sampled_from(
    [
        *(
            Color.RED,
            Color.PAIR,
            Level.LOW,
            Text("text"),
            Pair(1, (2,)),
            Point(1),
            Point({1}, Leg(2)),
            Leg(()),
            Leg({}),
        ),
        *(OrderedDict(a=(1,)), Counter("ab"), bytearray(b"ab"), memoryview(b"ab"), object(), range(3), {Point(1)}),
        *({Color.PAIR, (1, 2)}, {(1, Point(2))}, {Point(1): 2}, {Level.LOW: 1}, frozenset({Color.RED}), 1j * math.nan),
        *(Decimal("NaN"), Decimal("-0.0"), Decimal("sNaN"), ValueError("x"), "\ud800", int, {Text("k"): Text("v")}),
        *(datetime.datetime(2020, 2, 2, tzinfo=datetime.UTC), datetime.datetime.min.replace(tzinfo=datetime.UTC)),
        *(datetime.time(1, 2, tzinfo=datetime.UTC), datetime.timedelta.max, datetime.timedelta.min, 2**64, 2**64 - 1),
        *(
            numpy.arange(3),
            numpy.complex128(1j),
            numpy.datetime64("2020-02-02T01:01"),
            {numpy.int8(3)},
            numpy.float64(1),
        ),
        *(msgspec.msgpack.Ext(5, b"five"), msgspec.msgpack.Ext(20, b"five"), msgspec.Raw(b"\xd4\x06\x01")),
        *((1,) * 300, ((1,) * 70, "x" * 300)),
    ]
)
any_value = st.recursive(
    exact | odd,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@given(exact)
@example(2**63)
@example({-(2**63) - 1: frozenset()})
@example({(): ((),)})
def test_what_is_sent_comes_back_equal(value: Any) -> None:
    assert same("encode", value, True)[0] == "gave"
    data = _fastpath.encode(value, True)
    assert same("unpack", data, 1, bytes, True)[0] == "gave"
    [back] = _fastpath.unpack(data, 1, no_error, True)
    assert back == value
    assert type(back) is type(value)


@settings(max_examples=examples(50))
@given(any_value)
def test_any_value(value: Any) -> None:
    if same("encode", value, True)[0] == "gave":
        assert same("unpack", _fastpath.encode(value, True), 1, bytes, True)[0] == "gave"


@settings(max_examples=examples(30))
@given(st.lists(any_value, max_size=3), st.integers(0, 3))
def test_any_calls(row: list[Any], count: int) -> None:
    rows = [row] * count
    calls = [("task_echo", row, {"k": row}) for row in rows]
    assert outcome(_fastpath.pack_calls, calls, {}, True) == outcome(model.pack_calls, calls, {}, True)
    same("pack_map", rows, True)


@st.composite
def extensions(draw: st.DrawFn, depth: int = 3) -> bytes:
    """An extension of ours with data that may be its, in a head of any width, inside others or not."""
    code = draw(st.integers(1, 16))
    inner = st.deferred(lambda: extensions(depth - 1)) if depth else st.binary(max_size=3)
    elements = st.lists(inner | messages(), max_size=3).map(lambda each: bytes([0x90 | len(each)]) + b"".join(each))
    texts = st.sampled_from(
        [b"1.5", b"NaN", b"sNaN", b"x", b"2020-02-02", b"2020-02-02T01:01", b"01:01+01:00", b"1E+9"]
    )
    sized = st.sampled_from([16, 12, 8, 1, 0]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
    data = draw(elements | texts | sized | st.binary(max_size=9))
    if draw(st.booleans()):
        return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, data))
    width = draw(st.integers(0, 2))
    return bytes([0xC7 + width]) + len(data).to_bytes(2**width) + struct.pack("b", code) + data


@settings(max_examples=examples(50))
@given(st.lists(extensions() | messages(), min_size=1, max_size=4), st.data())
def test_any_bytes(parts: list[bytes], data: st.DataObject) -> None:
    body = b"".join(parts)
    same("unpack", body, len(parts), bytes, True)
    same("unpack", bytes([0x80 | len(parts) // 2]) + body, 1 + len(parts) % 2, bytes, True)
    same("unpack", data.draw(damaged(body)), len(parts), bytes, True)


@given(any_bytes)
def test_any_bytes_at_all(body: bytes) -> None:
    same("unpack", body, 1, bytes, True)


@settings(max_examples=examples(30))
@given(st.lists(any_value, max_size=3), st.lists(extensions(), max_size=3), st.integers(0, 2))
def test_a_turn(values: list[Any], parts: list[bytes], reply: int) -> None:
    sendable = [value for value in values if outcome(model.encode, value, True)[0] == "gave"]
    tasks = [model.encode([0, sendable], True)[:2] + model.encode(sendable, True), b"\x92\x00\x91" + b"".join(parts)]
    for flag in (0, layouts.VALUES_FLAG):
        batch = model.pack_batch(1, 0, [section_of(join_frames(tasks), reply=reply | flag)])
        same("read_batch", batch)
        assert turn(_fastpath, batch) == turn(model, batch)


WRAPPERS: list[Callable[[Any], Any]] = [
    lambda value: (value,),
    lambda value: [value],
    lambda value: {"k": value},
    lambda value: frozenset([value]),
    Point,
]


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("depth", range(limits.MAX_DEPTH - 2, limits.MAX_DEPTH + 3))
def test_depth(depth: int, wrap: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    if same("encode", value, True)[0] == "gave":
        same("unpack", _fastpath.encode(value, True), 1, bytes, True)
    deep = b"\x01"
    for _ in range(depth):
        deep = msgspec.msgpack.encode(msgspec.msgpack.Ext(int(layouts.ValueExt.TUPLE), b"\x91" + deep))
    same("unpack", deep, 1, bytes, True)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 15, 16, 254, 255, 256, 65532, 65535, 65536])
def test_every_length_of_an_extension(size: int) -> None:
    """`size` bytes of data where they fit: a head of each width, and the data behind it."""
    for value in ((None,) * size, ("x" * size,), {"x" * size}, 2 ** (8 * size + 65), Decimal("1" * max(1, size))):
        assert same("encode", value, True)[0] == "gave"
        assert _fastpath.unpack(_fastpath.encode(value, True), 1, no_error, True) == [value]


def colliding(count: int, kind: Callable[[int], Any]) -> list[Any]:
    """Values that Python hashes alike."""
    return [kind(5 + number * sys.hash_info.modulus) for number in range(count)]


ALIKE: list[Callable[[int], Any]] = [int, Decimal, lambda number: UUID(int=number), lambda number: (number,)]


def refused(value: Any, elements: Any) -> bool:
    """Whether both refuse to send it, and to read its elements in an extension and, as keys, in a map."""
    packed = [model.encode(each, True) for each in elements]
    array = b"\xdd" + len(packed).to_bytes(4) + b"".join(packed)
    code = int(layouts.ValueExt.SET)
    told = [
        same("encode", value, True)[0],
        same("unpack", msgspec.msgpack.encode(msgspec.msgpack.Ext(code, array)), 1, bytes, True)[0],
        same("unpack", b"\xdf" + array[1:5] + b"\xc0".join(packed) + b"\xc0", 1, bytes, True)[0],
    ]
    assert len(set(told)) == 1
    return told[0] == "raised"


@pytest.mark.parametrize("kind", ALIKE)
def test_no_more_collide_than_is_quick(kind: Callable[[int], Any]) -> None:
    most = limits.MAX_EQUAL_HASHES
    for count, is_refused in ((most, False), (most + 1, True)):
        keys = [*map(str, range(100)), *colliding(count, kind)]
        assert refused(set(keys), keys) == is_refused
        assert refused(dict.fromkeys(keys), keys) == is_refused


def test_large_sets_and_maps() -> None:
    most = limits.MAX_NUMBER_KEYS
    keys: list[Any]
    for keys in ([(n,) for n in range(most)], [str(n) for n in range(most + 1)]):
        for value in (set(keys), dict.fromkeys(keys)):
            assert _fastpath.unpack(_fastpath.encode(value, True), 1, no_error, True) == [value]
    for keys in ([(n,) for n in range(most + 1)], [*map(str, range(most)), 1]):
        assert refused(set(keys), keys)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (range(3), r"send list\(…\) of it"),
        (iter([1]), r"send list\(…\) of it"),
        (ValueError("x"), r"raise it, or send str\(…\) of it"),
        (Path(), r"send str\(…\) of it"),
        (len, "send its name"),
        (int, "send its name"),
        (object(), "send what it holds"),
        ({(1, Point(2))}, "send a list"),
        ({(n,) for n in range(20000)}, "text or bytes where it has more than 16384"),
        (set(colliding(65, int)), "have one hash: a list has no hashes"),
        (msgspec.msgpack.Ext(3, b""), "take another code"),
    ],
)
def test_what_is_refused_says_what_to_send(value: object, advice: str) -> None:
    with pytest.raises(BadArguments, match=advice):
        _fastpath.encode([value], True)
