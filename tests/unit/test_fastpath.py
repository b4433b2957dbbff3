"""Where the model cannot tell: texts, limits, values that change while they are sent."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import pickle
import struct
import tracemalloc
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from taskengine import _fastpath
from taskengine.errors import BadArguments, ProtocolError
from taskengine.protocol import layouts, limits
from tests import model
from tests.batches import Failures, batch_of, entry, join_frames, no_error, no_foreign, run, section_of, task

# ---- values


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(msgspec.Struct):
    name: str


class Holder(msgspec.Struct):
    value: Any


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2020, 2, 2, tzinfo=datetime.UTC),
        uuid.UUID(int=5),
        layouts.Format.LEGACY_JSON,
        {1},
        Point(1, 2),
        Colour("red"),
        bytearray(b"x"),
        2**64 - 1,
        {"deep": [Point(1, 2), {"k": (Colour("red"), None)}]},
        {None: "none", 1.5: "float", b"b": "bytes", True: "bool", -1: "int", layouts.Format.DATA: "enum"},
    ],
)
def test_what_is_not_plain_is_written_as_msgspec_does(value: object) -> None:
    assert _fastpath.encode(value) == msgspec.msgpack.encode(value)
    assert _fastpath.unpack(_fastpath.encode(value), 1, no_error) == [msgspec.msgpack.decode(_fastpath.encode(value))]


@pytest.mark.parametrize("key", [(1, 2), (), frozenset({1}), datetime.datetime(2020, 2, 2, tzinfo=datetime.UTC)])
def test_the_keys_of_maps_are_scalars(key: object) -> None:
    data = msgspec.msgpack.encode([{key: 1}])
    with pytest.raises(ProtocolError, match="the key of a map is"):
        _fastpath.unpack(data, 1, no_error)
    for value in ({key: 1}, [{1: {key: 1}}], Holder({key: 1})):
        with pytest.raises(BadArguments, match="the key of a map is"):
            _fastpath.encode(value)


def test_a_large_map_has_text_or_bytes_as_keys() -> None:
    """Of numbers there are as many as can do no harm: 2**18 that were chosen for it took 4 s."""
    most = limits.MAX_NUMBER_KEYS
    for keys in (range(most), map(float, range(most)), map(str, range(most + 1)), (b"%d" % n for n in range(most + 1))):
        value: dict[object, None] = dict.fromkeys(keys)
        assert _fastpath.unpack(_fastpath.encode(value), 1, no_error) == [value]
    for one in (1, 1.5, None, True, -1, -1000, 2**40):
        value = dict.fromkeys([*map(str, range(most)), one])
        with pytest.raises(BadArguments, match="text or bytes where it has more than 16384"):
            _fastpath.encode(value)
        with pytest.raises(ProtocolError, match="text or bytes where it has more than 16384"):
            _fastpath.unpack(msgspec.msgpack.encode(value), 1, no_error)


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_every_length_of_every_kind(size: int) -> None:
    for value in ("x" * size, b"x" * size, [None] * size, dict.fromkeys(map(str, range(size)))):
        data = _fastpath.encode(value)
        assert data == msgspec.msgpack.encode(value)
        assert _fastpath.unpack(data, 1, no_error) == [value]


@pytest.mark.parametrize("bits", range(65))
@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_every_width_of_integers(bits: int, off: int, sign: int) -> None:
    value = sign * (2**bits + off)
    if -(2**63) <= value < 2**64:
        assert _fastpath.encode(value) == msgspec.msgpack.encode(value)
        assert _fastpath.unpack(_fastpath.encode(value), 1, no_error) == [value]
    else:
        with pytest.raises(BadArguments):
            _fastpath.encode(value)


def test_a_value_that_contains_itself() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(BadArguments, match="64 deep"):
        _fastpath.encode(value)


def test_what_cannot_be_sent_says_why_and_keeps_the_cause() -> None:
    with pytest.raises(BadArguments, match="a value of type complex cannot be sent: ") as caught:
        _fastpath.encode([1, {"k": 1j}])
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_fallback_may_write_only_one_whole_value() -> None:
    for raw in (b"", b"\x91", b"\x01\x02", b"\xc1", entry(b"")):
        with pytest.raises(BadArguments):
            _fastpath.encode([msgspec.Raw(raw)])


class Nasty(datetime.tzinfo):
    """Code of the program that runs in the middle of an encode."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta:
        self._act()
        return datetime.timedelta()

    def dst(self, when: datetime.datetime | None) -> None:
        return None

    def tzname(self, when: datetime.datetime | None) -> str:
        return "nasty"


def nasty(act: Callable[[], object]) -> datetime.datetime:
    return datetime.datetime(2020, 2, 2, tzinfo=Nasty(act))


def test_lists_and_dicts_that_change_while_they_are_sent() -> None:
    short: list[Any] = [["kept" + "alive"], 1]
    short.insert(0, nasty(short.clear))
    long: list[Any] = [1]
    long.insert(0, nasty(lambda: long.append(2)))
    mapped: dict[Any, Any] = {1: 1, 2: ["kept" + "alive"]}
    mapped[1] = nasty(mapped.clear)
    keyed: dict[Any, Any] = {}
    keyed[nasty(keyed.clear)] = ["kept" + "alive"]
    keyed[2] = 2
    outer: list[Any] = [[nasty(lambda: outer.clear()), "rest" * 9]]
    for value in (short, long, mapped, keyed, outer):
        with pytest.raises(BadArguments, match=r"changed its size|the key of a map is"):
            _fastpath.encode(value)


def deep(depth: int, inner: object = 1) -> object:
    """`inner` in that many lists."""
    return inner if depth == 0 else [deep(depth - 1, inner)]


@pytest.mark.parametrize("inner", [[], {}, Point(1, 2), Colour("red"), {1}])
def test_the_depth_of_a_value_has_a_limit_both_ways(inner: object) -> None:
    fits, too_deep = deep(limits.MAX_DEPTH - 1, inner), deep(limits.MAX_DEPTH, inner)
    assert _fastpath.encode(fits) == msgspec.msgpack.encode(fits)
    with pytest.raises(BadArguments, match="deep"):
        _fastpath.encode(too_deep)
    decoded = _fastpath.unpack(msgspec.msgpack.encode(fits), 1, no_error)
    assert decoded == [msgspec.msgpack.decode(msgspec.msgpack.encode(fits))]
    with pytest.raises(ProtocolError, match="deep"):
        _fastpath.unpack(msgspec.msgpack.encode(too_deep), 1, no_error)


# ---- packing


def test_positions_and_names_in_errors() -> None:
    with pytest.raises(BadArguments, match=r"^call 1: a value of type object cannot be sent") as caught:
        _fastpath.pack_calls([("a", (1,), {}), ("b", (object(),), {})], {})
    assert caught.value.name == "b"
    with pytest.raises(BadArguments, match=r"^call 2: ") as caught:
        _fastpath.pack_map([[1, 2, {1j: 2}]])
    assert caught.value.name is None


@pytest.mark.parametrize(
    "call",
    [
        ("a", (1,)),
        "abc",
        (1, (), {}),
        (None, (), {}),
        ("a", 1, {}),
        ("a", "text", {}),
        ("a", (), 5),
        ("a", (), [1]),
        ("a", (), {1: 2}),
    ],
)
def test_calls_of_another_shape(call: Any) -> None:
    with pytest.raises(BadArguments, match="call 0: "):
        _fastpath.pack_calls([call], {})


def test_names_are_kept_from_call_to_call() -> None:
    names = {"first": 0}
    _, body = _fastpath.pack_calls([("second", (), {}), ("first", (), {})], names)
    assert names == {"first": 0, "second": 1}
    assert body == bytes.fromhex("92 01 90 92 00 90")


def test_any_sequence_and_any_mapping() -> None:
    call = ("a", range(2), types.MappingProxyType({"name": "red"}))
    assert _fastpath.pack_calls(iter([call]), {}) == model.pack_calls([("a", [0, 1], {"name": "red"})], {})
    rows = model.pack_calls([("a", [1, "x"], {}), ("a", [2, "y"], {})], {})
    for columns in ([[1, 2], "xy"], [(1, 2, 3), ["x", "y"]], [range(1, 9), iter("xy")]):
        assert _fastpath.pack_map(columns) == rows
    assert _fastpath.pack_map([]) == (b"", b"")
    assert _fastpath.pack_map([[], [1]]) == (b"", b"")


def test_what_an_iterator_raises_passes_through() -> None:
    def arguments() -> Iterator[int]:
        yield 1
        raise LookupError("the program's own")

    with pytest.raises(LookupError, match="own"):
        _fastpath.pack_map([arguments()])


def test_a_package_has_a_limit() -> None:
    half = b"x" * (limits.MAX_BODY // 2)
    with pytest.raises(BadArguments, match=r"call 1: more than \d+ bytes"):
        _fastpath.pack_map([[half, half]])
    with pytest.raises(BadArguments, match=f"call {limits.MAX_TASKS}: "):
        _fastpath.pack_map([range(limits.MAX_TASKS + 1)])
    ends = struct.pack(f"<{limits.MAX_TASKS + 1}I", *range(1, limits.MAX_TASKS + 2))
    with pytest.raises(ProtocolError):
        _fastpath.check_index(ends, limits.MAX_TASKS + 1)


# ---- reading


@pytest.mark.parametrize("tag", ["dd", "df", "c6", "db", "c9", "dc", "de", "c5", "da", "c8"])
@pytest.mark.parametrize("nest", [0, 1, 60])
def test_a_length_without_its_bytes_makes_no_room(tag: str, nest: int) -> None:
    claim = bytes.fromhex(tag + "ffffffff")
    for body in (claim, claim * (nest + 1), b"\x91" * nest + claim + b"\x01" * 40):
        with pytest.raises(ProtocolError):
            _fastpath.unpack(body, 1, no_error)
        with pytest.raises(ProtocolError):
            _fastpath.unpack(body, 2**32, no_error)
        failures = Failures()
        run([b"\x92\x00" + body, b"\x93\x00\x90" + body], [print], failures)
        assert [type(error) for *_, error in failures] == [ProtocolError] * 2


def test_lengths_inside_each_other_make_no_room_either() -> None:
    size = 1_000_000
    body = (b"\xdd" + size.to_bytes(4)) * 60 + bytes(size)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            _fastpath.unpack(body, 1, no_error)
        assert tracemalloc.get_traced_memory()[1] < 3 * 8 * size
    finally:
        tracemalloc.stop()


def test_error_entries_are_asked_for_and_may_raise() -> None:
    body = entry(b"first") + b"\x05" + entry(b"")
    assert _fastpath.unpack(body, 3, lambda data: data) == [b"first", 5, b""]
    with pytest.raises(LookupError):
        _fastpath.unpack(body, 3, {b"second": 2}.__getitem__)
    with pytest.raises(ProtocolError, match="inside a value"):
        _fastpath.unpack(b"\x91" + entry(b""), 1, no_error)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(kind: Callable[[bytes], Any]) -> None:
    index, body = _fastpath.pack_map([(1, 2)])
    assert _fastpath.unpack(kind(b"\x01\x02"), 2, no_error) == [1, 2]
    assert _fastpath.check_index(kind(index), len(body)) == 2
    assert _fastpath.task_names(kind(index), kind(body)) == [(0, 2, 0)]
    batch = batch_of([task(0)])
    assert _fastpath.read_batch(kind(batch)) == _fastpath.read_batch(batch)
    answer = _fastpath.run_batch(kind(batch), lambda head: [int], Failures(), no_foreign)
    assert _fastpath.read_answer(kind(answer))[0][5] == b"\x00"


def test_runs_of_names() -> None:
    tasks = [task(0), task(0), task(3), b"\x91\x01", b"\xff", task(2**40), task(0)]
    index, body = join_frames(tasks)
    assert _fastpath.task_names(index, body) == [(0, 2, 0), (2, 3, 3), (3, 6, layouts.NO_NAME), (6, 7, 0)]
    assert _fastpath.task_names(b"", b"") == []


def test_names_that_are_used_and_where() -> None:
    tasks = [task(3), task(1), task(1), b"\x91\x01", task(2**16), task(3)]
    index, body = join_frames(tasks)
    assert _fastpath.used_names(index, body) == [1, 3, layouts.NO_NAME]
    assert _fastpath.used_names(b"", b"") == []
    (first, second, last) = _fastpath.find_tasks(index, body, b"\0\1\0\1", 3)
    assert [found[0] for found in (first, second, last)] == [0, 1, 2]
    assert [body[start:stop] for _, start, stop in (first, second, last)] == tasks[:3]
    assert _fastpath.find_tasks(index, body, b"\0\0\1", 9) == []


def test_a_name_at_the_end_of_a_large_package() -> None:
    index, body = _fastpath.pack_calls([("move", (j,), {}) for j in range(200_000)] + [("stop", (), {})], {})
    assert _fastpath.used_names(index, body) == [0, 1]
    assert [found[0] for found in _fastpath.find_tasks(index, body, b"\0\1", 1)] == [200_000]


@pytest.mark.parametrize("index", ["00000000", "01000000 01000000", "02000000 01000000", "01", "03000000"])
def test_an_index_that_does_not_fit(index: str) -> None:
    with pytest.raises(ProtocolError):
        _fastpath.check_index(bytes.fromhex(index), 1)


@pytest.mark.parametrize(
    ("first", "stop", "index"),
    [
        (0, 0, "01 02"),
        (1, 1, "01 02"),
        (0, 3, "01 02"),
        (2, 1, "01 02"),
        (0, 2, "01 05"),
        (1, 2, "02 02"),
        (1, 2, "02 01"),
    ],
)
def test_slices_that_a_package_does_not_have(first: int, stop: int, index: str) -> None:
    ends = b"".join(end.to_bytes(4, "little") for end in bytes.fromhex(index))
    with pytest.raises(ProtocolError):
        _fastpath.pack_batch(1, 0, [section_of((ends, b"abc"), first, stop, sizes=(1, 0, 1))])


@pytest.mark.parametrize("sizes", [(0, 0, 1), (4, 0, 1), (1, 1, 0), (2, 0, 0)])
def test_chunks_that_a_slice_cannot_have(sizes: tuple[int, int, int]) -> None:
    batch = _fastpath.pack_batch(1, 0, [section_of(join_frames([b"x"] * 3), sizes=sizes)])
    with pytest.raises(ProtocolError, match="a slice of 3 tasks that begins with"):
        _fastpath.read_batch(batch)


def test_the_chunks_of_a_slice() -> None:
    package = join_frames([b"x"] * 12)
    batch = _fastpath.pack_batch(1, 0, [section_of(package, 1, 12, sizes=(1, 2, 3), head=b"head", job=9)])
    assert _fastpath.read_batch(batch) == [(9, 0, b"head", [(1, 1), (2, 4), (3, 4), (4, 2)])]


# ---- assembling


def test_assembly() -> None:
    assembly = _fastpath.Assembly(5)
    assert not assembly.put(2, 4, b"c")
    assert (assembly.missing, assembly.held, assembly.gaps()) == (3, 1, [(0, 2), (4, 5)])
    for first, stop in ((2, 4), (1, 3), (3, 5), (0, 5), (4, 4), (4, 6), (-1, 1), (1, 0)):
        with pytest.raises(ProtocolError):
            assembly.put(first, stop, b"again")
    with pytest.raises(ProtocolError, match="3 of 5 tasks are missing"):
        assembly.join()
    assert not assembly.put(0, 2, b"")
    assert assembly.put(4, 5, b"bb")
    assert assembly.join() == b"cbb"
    assert assembly.pieces() == [(0, 2, b""), (2, 4, b"c"), (4, 5, b"bb")]
    assert (assembly.held, assembly.gaps()) == (3, [])


def test_an_assembly_of_nothing_is_whole() -> None:
    assert _fastpath.Assembly(0).join() == b""
    assert _fastpath.Assembly(0).pieces() == []


def test_an_assembly_is_neither_copied_nor_pickled_nor_made_by_halves() -> None:
    with pytest.raises(TypeError):
        _fastpath.Assembly.__new__(_fastpath.Assembly)  # type: ignore[call-arg]
    for way in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            way(_fastpath.Assembly(1))
