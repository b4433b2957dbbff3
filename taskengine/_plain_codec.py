"""The client's part of `taskengine._fastpath` in plain Python: packs calls, reads results. On msgspec and struct.

The client for machines without a wheel of their own (`py3-none-any`) has it in place of the compiled module, as
`taskengine._fastpath`. It gives the same bytes, values and types of errors, more slowly; only texts of errors differ.
The engine never uses it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple

import msgspec

from taskengine.errors import BadArguments, ProtocolError
from taskengine.protocol import arrays, layouts, limits, values

TOO_DEEP = f"values may nest {limits.MAX_DEPTH} deep"
NO_KEY = (
    "the key of a map is text, bytes, a number, a bool or nothing, "
    f"and text or bytes where it has more than {limits.MAX_NUMBER_KEYS}"
)
ALIKE = f"more than {limits.MAX_EQUAL_HASHES} keys of a map, or elements of a set, have one hash: a list has no hashes"

# tag: (bytes of length that follow, kind)
_LONG = {
    0xC4: (1, "data"), 0xC5: (2, "data"), 0xC6: (4, "data"), 0xC7: (1, "ext"), 0xC8: (2, "ext"), 0xC9: (4, "ext"),
    0xD9: (1, "data"), 0xDA: (2, "data"), 0xDB: (4, "data"),
    0xDC: (2, "array"), 0xDD: (4, "array"), 0xDE: (2, "map"), 0xDF: (4, "map"),
}  # fmt: skip
FIXED = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8,
    0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip


class Header(NamedTuple):
    """A value's kind, its length or number of elements, and where they begin."""

    kind: str
    size: int
    at: int


def header(data: bytes, at: int) -> Header:
    """Return the bytes that begin at `at`; only the presence of their length has been checked."""
    if at >= len(data):
        raise ProtocolError("the bytes end too early")
    tag = data[at]
    if tag < 0x80 or tag >= 0xE0:
        return Header("data", 0, at + 1)
    if tag < 0xC0:
        kind = "map" if tag < 0x90 else "array" if tag < 0xA0 else "data"
        return Header(kind, tag & (0x1F if tag >= 0xA0 else 0x0F), at + 1)
    if tag in FIXED:
        return Header("data", FIXED[tag], at + 1)
    if 0xD4 <= tag <= 0xD8:
        return Header("ext", 1 << (tag - 0xD4), at + 1)
    if tag not in _LONG:
        raise ProtocolError("0xc1 begins no value")
    width, kind = _LONG[tag]
    if at + 1 + width > len(data):
        raise ProtocolError("the bytes end too early")
    return Header(kind, int.from_bytes(data[at + 1 : at + 1 + width]), at + 1 + width)


def end_of(data: bytes, at: int, depth: int = 0, *, error_entry: bool = False, typed: bool = False) -> int:
    """Where the value that begins at `at` ends; `error_entry` tells that it may be one.

    Where it is `typed`, extensions for Python's other values may be keys of maps.
    """
    kind, size, at = header(data, at)
    if kind in ("array", "map"):
        if depth >= limits.MAX_DEPTH:
            raise ProtocolError(TOO_DEEP)
        for number in range(size if kind == "array" else 2 * size):
            if kind == "map" and number % 2 == 0 and not is_key(data, at, size, typed=typed):
                raise ProtocolError("the key of a map is a scalar, and of a large one text or bytes")
            at = end_of(data, at, depth + 1, typed=typed)
        return at
    end = at + size + (kind == "ext")
    if end > len(data):
        raise ProtocolError("the bytes end too early")
    if kind == "ext" and ext_code(data, at) == layouts.ERROR_EXT and not error_entry:
        raise ProtocolError("an error entry inside a value")
    return end


def is_key(data: bytes, at: int, size: int, *, typed: bool = False) -> bool:
    """Whether the value that begins at `at` may be a key of a map, or an element of a set, of this size."""
    if size > limits.MAX_NUMBER_KEYS and header(data, at):
        return 0xA0 <= data[at] < 0xC0 or data[at] in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB)
    kind = header(data, at).kind
    return kind == "data" or (typed and kind == "ext")


def ext_code(data: bytes, at: int) -> int:
    """The signed byte at `at`."""
    code: int = struct.unpack_from("b", data, at)[0]
    return code


def decode(data: bytes, *, typed: bool = False) -> Any:
    """The one value that the bytes hold."""
    if typed:
        value, end = _read_typed(data, 0, 0)
        if end != len(data):
            raise ProtocolError("bytes are left over")
        return value
    if end_of(data, 0) != len(data):
        raise ProtocolError("bytes are left over")
    try:
        return msgspec.msgpack.decode(data, ext_hook=_extension)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise ProtocolError(str(error)) from None


def _extension(code: int, data: memoryview) -> Any:
    return arrays.decoded(bytes(data)) if code == layouts.ARRAY_EXT else msgspec.msgpack.Ext(code, bytes(data))


_COLLECTIONS: dict[int, Callable[[list[Any]], Any]] = {
    layouts.ValueExt.TUPLE: tuple,
    layouts.ValueExt.SET: set,
    layouts.ValueExt.FROZENSET: frozenset,
}


def _read_typed(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value that begins at `at`, with the extensions for Python's other values, and where it ends."""
    end = end_of(data, at, depth, typed=True)
    kind, size, start = header(data, at)
    if kind == "array":
        return _elements(data, at, depth), end
    if kind == "map":
        parts, start = [], start
        for _ in range(2 * size):
            part, start = _read_typed(data, start, depth + 1)
            parts.append(part)
        _check_hashes(parts[::2])
        return dict(zip(parts[::2], parts[1::2], strict=True)), end
    code = ext_code(data, start) if kind == "ext" else 0
    held = data[start + 1 : end]
    if code in _COLLECTIONS:
        if depth >= limits.MAX_DEPTH or header(held, 0).kind != "array":
            raise ProtocolError(f"{TOO_DEEP}, and the data of a tuple or a set is an array")
        elements = _elements(held, 0, depth, is_set=code != layouts.ValueExt.TUPLE)
        if end_of(held, 0, depth, typed=True) != len(held):
            raise ProtocolError("bytes are left over")
        return _COLLECTIONS[code](elements), end
    return (values.decoded(code, held) if code in layouts.RESERVED_EXTS else decode(data[at:end])), end


def _elements(data: bytes, at: int, depth: int, *, is_set: bool = False) -> list[Any]:
    """The elements of the array that begins at `at`."""
    elements = []
    _, size, at = header(data, at)
    for _ in range(size):
        if is_set and not is_key(data, at, size, typed=True):
            raise ProtocolError(NO_KEY)
        element, at = _read_typed(data, at, depth + 1)
        elements.append(element)
    if is_set:
        _check_hashes(elements)
    return elements


def _check_hashes(keys: Iterable[Any]) -> None:
    """That values can be keys of one map, or elements of one set."""
    try:
        hashes = Counter(hash(key) for key in keys if not isinstance(key, (str, bytes)))
    except TypeError as error:
        raise ProtocolError(f"the key of a map, or an element of a set, cannot be hashed: {error}") from None
    if max(hashes.values(), default=0) > limits.MAX_EQUAL_HASHES:
        raise ProtocolError(ALIKE)


def encode(value: object, typed: bool = False) -> bytes:
    """As `_fastpath.encode`."""
    try:
        data = _typed(value, 0) if typed else msgspec.msgpack.encode(value, enc_hook=arrays.encoded)
        if end_of(data, 0, typed=typed) != len(data):
            raise ProtocolError("more than a value")
    except BadArguments:
        raise
    except Exception as error:
        raise BadArguments(f"a value of type {type(value).__name__} cannot be sent: {error}") from error
    return data


def _typed(value: Any, depth: int) -> bytes:
    """The value with extensions for what MessagePack lacks."""
    kind = type(value)
    if kind in (list, tuple, dict) and depth >= limits.MAX_DEPTH:
        raise BadArguments(TOO_DEEP)
    if kind is list:
        return _headed(len(value), 0x90, 0xDC) + b"".join(_typed(each, depth + 1) for each in value)
    if kind is tuple:
        return _ext(layouts.ValueExt.TUPLE, _typed([*value], depth))
    if kind is dict:
        _check_hashes(value)
        pairs = [_key(key, len(value), depth) + _typed(each, depth + 1) for key, each in value.items()]
        return _headed(len(value), 0x80, 0xDE) + b"".join(pairs)
    if kind in (float, bool, bytes, type(None)):
        return msgspec.msgpack.encode(value)
    try:
        code, held = values.lowered(value)
    except Exception as error:
        raise BadArguments(f"a value of type {kind.__name__} cannot be sent: {error}") from error
    if code == values.PLAIN:
        return _typed(held, depth)
    if code == values.PACKED:
        if end_of(held, 0, depth, typed=True) != len(held):
            raise BadArguments("more than a value")
        return bytes(held)
    if isinstance(held, list):
        _check_hashes(held)
        if depth >= limits.MAX_DEPTH:
            raise BadArguments(TOO_DEEP)
        held = _headed(len(held), 0x90, 0xDC) + b"".join(_key(each, len(held), depth) for each in held)
    return _ext(code, held)


def _key(key: Any, size: int, depth: int) -> bytes:
    data = _typed(key, depth + 1)
    if not is_key(data, 0, size) and not (is_key(data, 0, size, typed=True) and values.is_hashable(key)):
        raise BadArguments(f"{NO_KEY}, not {type(key).__name__}")
    return data


def _headed(size: int, small: int, tag: int) -> bytes:
    """How an array or a map of so many elements begins."""
    if size < 16:
        return bytes([small | size])
    return struct.pack(">BH", tag, size) if size <= 0xFFFF else struct.pack(">BI", tag + 1, size)


def _ext(code: int, data: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(int(code), data))


def _join(elements: Iterable[object], small: int, tag: int, *, typed: bool) -> bytes:
    """An array or map from its elements, which are values of their own."""
    items = [encode(value, typed) for value in elements]
    return _headed(len(items) if small == 0x90 else len(items) // 2, small, tag) + b"".join(items)


def _task(i: int, args: Iterable[object], kwargs: Mapping[str, object], *, typed: bool) -> bytes:
    if isinstance(args, (str, bytes)) or not all(isinstance(key, str) for key in kwargs):
        raise BadArguments("arguments are a sequence, and a mapping with text keys")
    task = bytes([0x93 if kwargs else 0x92]) + encode(i) + _join(args, 0x90, 0xDC, typed=typed)
    if kwargs:
        task += _join((part for pair in kwargs.items() for part in pair), 0x80, 0xDE, typed=typed)
    return task


def _package(tasks: Sequence[bytes]) -> tuple[bytes, bytes]:
    ends = list(accumulate(map(len, tasks)))
    if len(ends) > limits.MAX_TASKS:
        raise BadArguments(f"a package has at most {limits.MAX_TASKS} tasks")
    if ends and ends[-1] > limits.MAX_BODY:
        raise BadArguments(f"more than {limits.MAX_BODY} bytes do not fit into one message")
    return struct.pack(f"<{len(ends)}I", *ends), b"".join(tasks)


def pack_calls(
    calls: Iterable[tuple[str, Sequence[Any], Mapping[str, Any]]], names: dict[str, int], typed: bool = False
) -> tuple[bytes, bytes]:
    """As `_fastpath.pack_calls`."""
    tasks = []
    for position, (name, args, kwargs) in enumerate(calls):
        try:
            encode(name)
            tasks.append(_task(names.setdefault(name, len(names)), args, kwargs, typed=typed))
        except BadArguments as error:
            raise BadArguments(f"call {position}: {error}", name=name) from error
    return _package(tasks)


def pack_map(iterables: Iterable[Iterable[Any]], typed: bool = False) -> tuple[bytes, bytes]:
    """As `_fastpath.pack_map`."""
    tasks = []
    for position, args in enumerate(zip(*iterables, strict=False)):
        try:
            tasks.append(_task(0, args, {}, typed=typed))
        except BadArguments as error:
            raise BadArguments(f"call {position}: {error}") from error
    return _package(tasks)


def unpack(body: bytes, count: int, error: Callable[[bytes], object], typed: bool = False) -> list[Any]:
    """As `_fastpath.unpack`."""
    found: list[Any] = []
    at = 0
    if count < 0:
        raise ProtocolError(f"{len(body)} bytes are no {count} values")
    for _ in range(min(count, len(body) + 1)):
        kind, _, start = header(body, at)
        end = end_of(body, at, error_entry=True, typed=typed)
        if kind == "ext" and ext_code(body, start) == layouts.ERROR_EXT:
            found.append(error(body[start + 1 : end]))
        else:
            found.append(decode(body[at:end], typed=typed))
        at = end
    if at != len(body):
        raise ProtocolError("bytes are left over")
    return found


def ends_of(index: bytes, base: int, size: int) -> list[int]:
    """The places where the tasks of a package end, of which the first begins at `base`."""
    if len(index) % 4:
        raise ProtocolError("an index has 4 bytes for each task")
    ends = [end for (end,) in struct.iter_unpack("<I", index)]
    places = [base, *ends]
    if any(stop <= start for start, stop in zip(places, ends, strict=False)) or places[-1] - base != size:
        raise ProtocolError("the index does not fit")
    return ends


def check_index(index: bytes, body_len: int) -> int:
    """As `_fastpath.check_index`."""
    if len(index) // 4 > limits.MAX_TASKS:
        raise ProtocolError("too many tasks")
    return len(ends_of(index, 0, body_len))


def name_of(task: bytes) -> tuple[int, int]:
    """The name index of a task and where its arguments begin; (-1, 0) where there is none."""
    if task[0] not in (0x92, 0x93) or len(task) < 2:
        return -1, 0
    tag = task[1]
    if not (tag < 0x80 or 0xCC <= tag <= 0xD3):
        return -1, 0
    end = 2 + FIXED.get(tag, 0)
    if end > len(task):
        return -1, 0
    i = msgspec.msgpack.decode(task[1:end])
    return (i, end) if 0 <= i < 2**63 else (-1, 0)


def spans(ends: Iterable[int], base: int) -> Iterator[tuple[int, int]]:
    """Where each task begins and ends, counted from `base`."""
    start = 0
    for end in ends:
        yield start, end - base
        start = end - base


def find_tasks(index: bytes, body: bytes, wanted: bytes, most: int) -> list[tuple[int, int, int]]:
    """As `_fastpath.find_tasks`."""
    check_index(index, len(body))
    found = (
        (position, begin, end)
        for position, (begin, end) in enumerate(spans(ends_of(index, 0, len(body)), 0))
        if 0 <= (i := name_of(body[begin:end])[0]) < len(wanted)
        if wanted[i]
    )
    return list(islice(found, most))
