"""Any garbage in gives ProtocolError and nothing else, and whatever goes in, the compiled fast path does what
`tests.model` does: the same values, the same calls, the same errors."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskengine import _fastpath
from taskengine.protocol import layouts, limits
from tests import model
from tests.batches import join_frames, section_of
from tests.emulation import examples
from tests.twins import nested, outcome, same, turn

# ---- what goes in

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) - 2, 2**64 + 2)
    | st.integers(-40, 300)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.sampled_from([2**k for k in range(65)] + [-(2**k) for k in range(65)])
    | st.integers(0, 70000).map(lambda size: "x" * size)
    | st.sampled_from([datetime.datetime(2020, 2, 2, tzinfo=datetime.UTC), datetime.date(2020, 2, 2)])
    | st.sampled_from([layouts.Format.LEGACY_JSON, frozenset({1}), bytearray(b"ab"), "\ud800", object(), 1j])
    | st.sampled_from([numpy.float64(1.5), numpy.int8(-3), numpy.arange(6).reshape(2, 3), numpy.zeros((0, 2), "f4")])
    | st.sampled_from([numpy.array([object()]), numpy.array(["a", "bc"]), numpy.datetime64("2020-02-02"), numpy.True_])
    | st.sampled_from(
        [msgspec.msgpack.Ext(5, b"five"), msgspec.msgpack.Ext(layouts.ERROR_EXT, b""), msgspec.Raw(b"\xc1")]
    )
)
keys = st.text(max_size=5) | st.integers() | st.none() | st.binary(max_size=3) | st.tuples(st.integers(0, 3))
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=20)
    ),
    max_leaves=20,
)


deep_values = st.builds(nested, st.integers(limits.MAX_DEPTH - 2, limits.MAX_DEPTH + 2), st.integers(0, 2))
calls = st.lists(
    st.tuples(
        st.sampled_from(["task_count", "arm.wave", "é", "\ud800"]),
        st.lists(values, max_size=20) | st.lists(values, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5) | st.integers(0, 1), values, max_size=3),
    ),
    max_size=5,
)


def long_form(tags: tuple[int, ...], size: int, width: int) -> bytes:
    """A tag and a length, in the form that is 1, 2 or 4 bytes wide."""
    tag = tags[-3:][width] if len(tags) == 3 else tags[width - 1 if width else 0]
    return bytes([tag]) + size.to_bytes(2 ** (width if len(tags) == 3 else max(width, 1)))


@st.composite
def messages(draw: st.DrawFn, depth: int = 3) -> bytes:
    """MessagePack as no sane program writes it: lengths in any width, keys of any kind, any extension, bad text."""
    width = draw(st.integers(0, 2))
    kind = draw(st.integers(0, 6 if depth else 4))
    if kind == 0:
        return bytes([draw(st.integers(0, 255))])
    if kind == 1:
        tag = draw(st.sampled_from([0xCA, 0xCB, *range(0xCC, 0xD4)]))
        size = {0xCA: 4, 0xCB: 8}.get(tag, 2 ** ((tag - 0xCC) % 4))
        return bytes([tag]) + draw(st.binary(min_size=size, max_size=size))
    data = draw(st.binary(max_size=12) | st.text(max_size=6).map(str.encode))
    if kind == 2:
        tags = draw(st.sampled_from([(0xC4, 0xC5, 0xC6), (0xD9, 0xDA, 0xDB)]))
        return long_form(tags, len(data), width) + data
    if kind == 3:
        code = draw(st.sampled_from([-1, layouts.ERROR_EXT, layouts.ARRAY_EXT, 5]))
        return long_form((0xC7, 0xC8, 0xC9), len(data), width) + struct.pack("b", code) + data
    if kind == 4:
        size = draw(st.integers(0, 4))
        return bytes([0xD4 + size, draw(st.sampled_from([255, 1, 2, 7]))]) + draw(
            st.binary(min_size=2**size, max_size=2**size)
        )
    items = draw(st.lists(messages(depth=depth - 1), max_size=4))
    if kind == 5:
        return long_form((0xDC, 0xDD), len(items), width) + b"".join(items)
    return long_form((0xDE, 0xDF), len(items) // 2, width) + b"".join(items[: len(items) // 2 * 2])


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes, or the bytes with some of them changed, lost or added."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        change = draw(st.integers(0, 2))
        if change == 0:
            del data[at : at + draw(st.integers(1, 9))]
        elif change == 1:
            data[at:at] = draw(st.binary(min_size=1, max_size=5))
        else:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
    return bytes(data)


any_bytes = st.binary(max_size=60) | st.lists(messages(), max_size=4).map(b"".join).flatmap(damaged)


# ---- what comes out


@given(values | deep_values)
def test_a_value(value: Any) -> None:
    if same("encode", value)[0] == "gave":
        same("unpack", _fastpath.encode(value), 1, bytes)


def same_names(index: bytes, body: bytes) -> None:
    same("task_names", index, body)
    same("used_names", index, body)
    for wanted in (b"", b"\1", b"\0\1\1\0\1"):
        same("find_tasks", index, body, wanted, 2)


@given(calls)
def test_calls(calls: list[tuple[str, Sequence[Any], dict[str, Any]]]) -> None:
    names: tuple[dict[str, int], dict[str, int]] = {}, {}
    expected = outcome(model.pack_calls, calls, names[0])
    assert outcome(_fastpath.pack_calls, calls, names[1]) == expected
    if expected[0] == "gave":
        assert names[0] == names[1]
        index, body = _fastpath.pack_calls(calls, {})
        same("check_index", index, len(body))
        same_names(index, body)


@given(st.lists(st.lists(values, max_size=5) | st.lists(values, max_size=5).map(tuple), max_size=4), st.booleans())
def test_a_map(columns: list[Sequence[Any]], as_iterators: bool) -> None:
    if not as_iterators:
        same("pack_map", columns)
    expected = outcome(model.pack_map, [iter(column) for column in columns])
    assert outcome(_fastpath.pack_map, [iter(column) for column in columns]) == expected


@given(any_bytes, st.integers(-1, 8) | st.sampled_from([2**31, 2**63, 2**64 - 1]))
def test_any_reply(body: bytes, count: int) -> None:
    same("unpack", body, count, lambda data: ("error", data))


@given(
    any_bytes
    | st.lists(messages() | st.just(b"\xa1t"), max_size=3).map(lambda each: bytes([0x90 | len(each)]) + b"".join(each))
)
@example(b"\x92\xa1t\x81\xa1a\x91\x01")
def test_any_data_request(body: bytes) -> None:
    same("read_topic", body)


@given(st.lists(messages(), max_size=5))
def test_any_reply_of_the_right_count(entries: list[bytes]) -> None:
    same("unpack", b"".join(entries), len(entries), bytes)


@st.composite
def indexed(draw: st.DrawFn, tasks: st.SearchStrategy[bytes]) -> tuple[bytes, bytes]:
    """(index, body) of tasks, damaged now and then."""
    index, body = join_frames(draw(st.lists(tasks, max_size=6)))
    return draw(damaged(index)) if draw(st.booleans()) else index, body


task_bytes = st.builds(
    lambda start, i, rest: start + i + rest,
    st.sampled_from([b"\x92", b"\x92", b"\x93", b"\x94"]),
    st.sampled_from([b"\x00", b"\x01", b"\x07", b"\xcc\x02", b"\xcd\x00\x03", b"\xd0\x04", b"\xd1\xff\xff"])
    | st.sampled_from(
        [b"\xcf" + bytes([255] * 8), b"\xce\xff\xff\xff\xff", b"\xcf\x00\x00\x00\x02" + bytes(4), b"\xc0"]
    ),
    st.lists(values.filter(lambda value: outcome(model.encode, value)[0] == "gave"), max_size=3).map(model.encode)
    | any_bytes,
)
real_tasks = st.builds(
    lambda i, args, kwargs: model.encode([i, args, kwargs] if kwargs else [i, args]),
    st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
    st.lists(st.integers() | st.text(max_size=3) | st.floats(), max_size=3).filter(
        lambda args: outcome(model.encode, args)[0] == "gave"
    ),
    st.dictionaries(st.sampled_from("abé"), st.integers(0, 2**40), max_size=3),
)
any_task = st.one_of(
    real_tasks,
    real_tasks,
    st.builds(bytes.__add__, real_tasks, st.binary(max_size=2)),
    (real_tasks | task_bytes).flatmap(damaged).filter(bool),
)


@given(indexed(any_task))
def test_any_package(package: tuple[bytes, bytes]) -> None:
    index, body = package
    same("check_index", index, len(body))
    same_names(index, body)


codes = st.text("fi", max_size=3).map(str.encode) | st.binary(max_size=3)


@given(codes, st.integers(0, 200) | st.sampled_from([0, 8, 16, 24, 48, 8 * limits.MAX_TASKS, 8 * limits.MAX_TASKS + 8]))
def test_any_columns(codes: bytes, size: int) -> None:
    same("check_columns", codes, size)


# ---- batches


deadlines = st.sampled_from([0, 0, 0, 1, 2**63])
no_limit = st.sampled_from([0, 2**62])


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """Sections of any format and reply mode; their slices are any of their packages, in chunks of any size."""
    sections = []
    for _ in range(draw(st.integers(0, 3))):
        tasks = draw(st.lists(any_task, min_size=1, max_size=8))
        format, package = draw(st.sampled_from([0, 0, 0, 1, 2, 3])), join_frames(tasks)
        if format == layouts.Format.COLUMNS:
            columns = draw(st.text("fi", min_size=1, max_size=3)).encode()
            size = 8 * len(columns) * len(tasks)
            package = columns, draw(st.binary(min_size=size, max_size=size))
        first = draw(st.integers(0, len(tasks) - 1))
        stop = draw(st.integers(first + 1, len(tasks)))
        lead, larger, size = draw(st.integers(1, stop - first)), draw(st.integers(0, 3)), draw(st.integers(1, 4))
        section = section_of(
            package,
            first,
            stop,
            sizes=(lead, larger, size),
            job=draw(st.integers(0, 2**64 - 1)),
            format=format,
            reply=draw(st.integers(0, 2)),
            deadline=draw(deadlines),
            head=draw(st.binary()),
        )
        sections.append(section)
    limit = draw(no_limit)
    assert same("pack_batch", 1, limit, sections)[0] == "gave"
    return model.pack_batch(1, limit, sections)


@settings(max_examples=examples(300))
@given(batches())
def test_a_batch(batch: bytes) -> None:
    same("read_batch", batch)
    expected = turn(model, batch)
    assert expected.answer is not None
    assert turn(_fastpath, batch) == expected


@given(batches().flatmap(damaged) | st.binary(max_size=60))
def test_any_batch(batch: bytes) -> None:
    batch = batch[:4] + bytes(len(batch[4:12])) + batch[12:]  # the model knows no limit of time
    same("read_batch", batch)
    assert turn(_fastpath, batch) == turn(model, batch)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4), indexed(any_task))
def test_any_slices(slices: list[tuple[int, int]], package: tuple[bytes, bytes]) -> None:
    index, body = package
    whole = index[: len(index) // 4 * 4], body
    same("pack_batch", 1, 0, [section_of(whole, *each, sizes=(1, 0, 1)) for each in slices])


entries = st.tuples(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 9),
    st.integers(0, 2**64 - 1),
    st.binary(),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    parts = [layouts.ENTRY.pack(*entry[:5], len(entry[5])) + entry[5] for entry in draw(st.lists(entries, max_size=4))]
    return layouts.COUNT.pack(len(parts)) + b"".join(parts)


@given(answers() | answers().flatmap(damaged) | st.binary(max_size=60))
def test_any_answer(answer: bytes) -> None:
    same("read_answer", answer)


pieces = st.tuples(st.integers(-1, 8), st.integers(-1, 8), st.binary(max_size=3))


@given(st.integers(-1, 6), st.lists(pieces, max_size=12))
def test_any_arrival_order(tasks: int, arrivals: list[tuple[int, int, bytes]]) -> None:
    def history(kind: Callable[[int], Any]) -> list[object]:
        assembly = kind(tasks)
        told: list[object] = []
        for first, stop, body in arrivals:
            told += [outcome(assembly.put, first, stop, body), assembly.missing, assembly.held]
            told += [outcome(assembly.pieces), outcome(assembly.bodies), outcome(assembly.join), assembly.gaps()]
        return told

    assert outcome(history, _fastpath.Assembly) == outcome(history, model.Assembly)


@given(st.permutations(range(8)))
def test_every_arrival_order_gives_the_order_of_the_tasks(order: list[int]) -> None:
    assembly = _fastpath.Assembly(len(order))
    assert [assembly.put(first, first + 1, bytes([first])) for first in order] == [False] * 7 + [True]
    assert assembly.join() == bytes(range(8))
