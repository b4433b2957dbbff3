"""The compiled fast path in plain Python, on msgspec and struct: slow, short, and right by inspection.

It differs from `taskengine._fastpath` only in the texts of its errors, and in `elapsed_ns`, which is 0 here.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from taskengine.errors import BadArguments, ProtocolError, TaskFailed, TaskTimeout
from taskengine.protocol import arrays, layouts, limits, values
from taskengine.protocol.messages import ReplyMode

Section = tuple[int, int, int, int, bytes, bytes, bytes, int, int, int, int, int, int]
Failed = Callable[[bytes, int, int, BaseException | None], bytes]
Foreign = Callable[[int, bytes, int, list[int], bytes, int], tuple[bytes, int]]

# tag: (bytes of length that follow, kind)
_LONG = {
    0xC4: (1, "data"), 0xC5: (2, "data"), 0xC6: (4, "data"), 0xC7: (1, "ext"), 0xC8: (2, "ext"), 0xC9: (4, "ext"),
    0xD9: (1, "data"), 0xDA: (2, "data"), 0xDB: (4, "data"),
    0xDC: (2, "array"), 0xDD: (4, "array"), 0xDE: (2, "map"), 0xDF: (4, "map"),
}  # fmt: skip
_FIXED = {
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
    if tag in _FIXED:
        return Header("data", _FIXED[tag], at + 1)
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
            raise ProtocolError("too deep")
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
            raise ProtocolError("too deep, or no array")
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
            raise ProtocolError("no element of a set")
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
        raise ProtocolError("no key") from error
    if max(hashes.values(), default=0) > limits.MAX_EQUAL_HASHES:
        raise ProtocolError("too many that Python hashes alike")


def encode(value: object, typed: bool = False) -> bytes:
    """As `_fastpath.encode`."""
    try:
        data = _typed(value, 0) if typed else msgspec.msgpack.encode(value, enc_hook=arrays.encoded)
        if end_of(data, 0, typed=typed) != len(data):
            raise ProtocolError("more than a value")
    except Exception as error:
        raise BadArguments(str(error)) from error
    return data


def _typed(value: Any, depth: int) -> bytes:
    """The value with extensions for what MessagePack lacks."""
    kind = type(value)
    if kind in (list, tuple, dict) and depth >= limits.MAX_DEPTH:
        raise BadArguments("too deep")
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
    code, held = values.lowered(value)
    if code == values.PLAIN:
        return _typed(held, depth)
    if code == values.PACKED:
        if end_of(held, 0, depth, typed=True) != len(held):
            raise BadArguments("more than a value")
        return bytes(held)
    if isinstance(held, list):
        _check_hashes(held)
        if depth >= limits.MAX_DEPTH:
            raise BadArguments("too deep")
        held = _headed(len(held), 0x90, 0xDC) + b"".join(_key(each, len(held), depth) for each in held)
    return _ext(code, held)


def _key(key: Any, size: int, depth: int) -> bytes:
    data = _typed(key, depth + 1)
    if not is_key(data, 0, size) and not (is_key(data, 0, size, typed=True) and values.is_hashable(key)):
        raise BadArguments("no key")
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
        raise BadArguments("arguments are a sequence and a mapping with text keys")
    task = bytes([0x93 if kwargs else 0x92]) + encode(i) + _join(args, 0x90, 0xDC, typed=typed)
    if kwargs:
        task += _join((part for pair in kwargs.items() for part in pair), 0x80, 0xDE, typed=typed)
    return task


def _package(tasks: Sequence[bytes]) -> tuple[bytes, bytes]:
    ends = [sum(map(len, tasks[: k + 1])) for k in range(len(tasks))]
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
        raise ProtocolError("fewer than no values")
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


def _ends(index: bytes, base: int, size: int) -> list[int]:
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
    return len(_ends(index, 0, body_len))


def check_columns(codes: bytes, body_len: int) -> int:
    """As `_fastpath.check_columns`."""
    if not 1 <= len(codes) <= 255 or set(codes) - set(b"fi"):
        raise ProtocolError("no such columns")
    tasks, rest = divmod(body_len, 8 * len(codes))
    if rest or tasks > limits.MAX_TASKS:
        raise ProtocolError("no such rows")
    return tasks


def _rows(codes: bytes, body: bytes) -> list[list[int | float]]:
    """The rows of columns."""
    size = len(body) // len(codes)
    parts = [body[size * j : size * (j + 1)] for j in range(len(codes))]
    numbers = [
        struct.iter_unpack("<d" if code == ord("f") else "<q", part) for code, part in zip(codes, parts, strict=True)
    ]
    return [[number for (number,) in row] for row in zip(*numbers, strict=True)]


def _name(task: bytes) -> tuple[int, int]:
    """The name index of a task and where its arguments begin; (-1, 0) where there is none."""
    if task[0] not in (0x92, 0x93) or len(task) < 2:
        return -1, 0
    tag = task[1]
    if not (tag < 0x80 or 0xCC <= tag <= 0xD3):
        return -1, 0
    end = 2 + _FIXED.get(tag, 0)
    if end > len(task):
        return -1, 0
    i = msgspec.msgpack.decode(task[1:end])
    return (i, end) if 0 <= i < 2**63 else (-1, 0)


def task_names(index: bytes, body: bytes) -> list[tuple[int, int, int]]:
    """As `_fastpath.task_names`."""
    check_index(index, len(body))
    names = []
    for start, stop in _spans(_ends(index, 0, len(body)), 0):
        i, _ = _name(body[start:stop])
        names.append(layouts.NO_NAME if i < 0 else min(i, layouts.NO_NAME))
    runs, first = [], 0
    for i, group in groupby(names):
        stop = first + len(list(group))
        runs.append((first, stop, i))
        first = stop
    return runs


def used_names(index: bytes, body: bytes) -> list[int]:
    """As `_fastpath.used_names`."""
    return sorted({i if i < 2**16 else layouts.NO_NAME for _, _, i in task_names(index, body)})


def find_tasks(index: bytes, body: bytes, wanted: bytes, most: int) -> list[tuple[int, int, int]]:
    """As `_fastpath.find_tasks`."""
    spans = list(_spans(_ends(index, 0, len(body)), 0))
    names = [i for first, stop, i in task_names(index, body) for _ in range(first, stop)]
    found = [
        (position, *spans[position])
        for position, i in enumerate(names)
        if i < min(len(wanted), layouts.NO_NAME)
        if wanted[i]
    ]
    return found[:most]


def _spans(ends: Sequence[int], base: int) -> Iterator[tuple[int, int]]:
    start = 0
    for end in ends:
        yield start, end - base
        start = end - base


def read_topic(body: bytes) -> tuple[str, int]:
    """As `_fastpath.read_topic`."""
    if end_of(body, 0) != len(body):
        raise ProtocolError("bytes are left over")
    kind, size, at = header(body, 0)
    if kind != "array" or not size:
        raise ProtocolError("no array")
    topic = decode(body[at : end_of(body, at)])
    if not isinstance(topic, str):
        raise ProtocolError("no topic")
    return topic, size


def pack_batch(number: int, slice_ns: int, sections: Sequence[Section]) -> bytes:
    """As `_fastpath.pack_batch`."""
    parts = [layouts.BATCH.pack(number, len(sections), slice_ns)]
    for job, format, reply, deadline, head, index, body, part, first, stop, *sizes in sections:
        columns = len(index) if format == layouts.Format.COLUMNS else 0
        ends = [end for (end,) in struct.iter_unpack("<I", index)] if not columns else []
        tasks = len(body) // (8 * columns) if columns else len(ends)
        if not first < stop <= tasks:
            raise ProtocolError("no such tasks")
        if columns:
            base = columns
            slices = [index, *(body[8 * (j * tasks + first) : 8 * (j * tasks + stop)] for j in range(columns))]
        else:
            base, end = ends[first - 1] if first else 0, ends[stop - 1]
            if not base < end <= len(body):
                raise ProtocolError("no such bytes")
            slices = [index[4 * first : 4 * stop], body[base:end]]
        size = sum(map(len, slices[1:]))
        places = (part, first, stop - first, *sizes, base, size, len(head))
        parts += [layouts.SECTION.pack(job, deadline, *places, format, reply), head, *slices]
    return b"".join(parts)


class _Frame:
    """A frame that is read from its start."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, size: int) -> bytes:
        if size > len(self._data):
            raise ProtocolError("the bytes end too early")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def finish(self) -> None:
        if self._data:
            raise ProtocolError("bytes are left over")


class _Section(NamedTuple):
    """A slice; `chunks` are the numbers of tasks in its chunks."""

    job: int
    deadline: int
    format: int
    reply: int
    typed: bool
    head: bytes
    part: int
    first: int
    chunks: list[int]
    tasks: list[Any]


def _chunks(count: int, lead: int, larger: int, size: int) -> list[int]:
    """The numbers of tasks in the chunks of a slice."""
    if not 1 <= lead <= count or (size == 0 and count - lead > larger):
        raise ProtocolError("no such chunks")
    sizes, left = [lead], count - lead
    while left > 0:
        sizes.append(min(size + (len(sizes) <= larger), left))
        left -= sizes[-1]
    return sizes


def _read_batch(batch: bytes) -> tuple[int, list[_Section]]:
    frame = _Frame(batch)
    sections = []
    _, count, slice_ns = frame.unpack(layouts.BATCH)
    for _ in range(count):
        job, deadline, part, first, tasks, *sizes, base, size, head_size, format, reply = frame.unpack(layouts.SECTION)
        typed, reply = bool(reply & layouts.VALUES_FLAG), reply & ~layouts.VALUES_FLAG
        if format > max(layouts.Format) or reply > ReplyMode.NONE:
            raise ProtocolError("no such format or reply mode")
        head = frame.take(head_size)
        is_columns = format == layouts.Format.COLUMNS
        index = frame.take(base if is_columns else 4 * tasks)
        body = frame.take(size)
        slices: list[Any]
        if is_columns:
            if not index or set(index) - set(b"fi") or len(body) != 8 * base * tasks:
                raise ProtocolError("no such columns")
            slices = _rows(index, body)
        else:
            slices = [body[start:stop] for start, stop in _spans(_ends(index, base, size), base)]
        chunks = _chunks(tasks, *sizes)
        sections.append(_Section(job, deadline, format, reply, typed, head, part, first, chunks, slices))
    frame.finish()
    return slice_ns, sections


def read_batch(batch: bytes) -> list[tuple[int, int, bytes, list[tuple[int, int]]]]:
    """As `_fastpath.read_batch`."""
    _, sections = _read_batch(batch)
    return [(s.job, s.format, s.head, list(enumerate(s.chunks, s.part))) for s in sections]


def _arguments(task: bytes, at: int, *, typed: bool) -> tuple[list[Any], dict[str, Any]]:
    def found(expected: str) -> Iterator[bytes]:
        nonlocal at
        kind, size, at = header(task, at)
        if kind != expected:
            raise ProtocolError(f"not a {expected}")
        for _ in range(size if expected == "array" else 2 * size):
            start, at = at, end_of(task, at, typed=typed)
            yield task[start:at]

    args = [decode(value, typed=typed) for value in found("array")]
    pairs = [decode(value, typed=typed) for value in found("map")] if task[0] == 0x93 else []
    if at != len(task):
        raise ProtocolError("bytes are left over")
    if not all(isinstance(key, str) for key in pairs[::2]) or len(set(pairs[::2])) != len(pairs[::2]):
        raise ProtocolError("a keyword that is no text, or came twice")
    return args, dict(zip(pairs[::2], pairs[1::2], strict=True))


def _run(
    task: bytes | list[Any], functions: Sequence[Callable[..., Any] | None], *, typed: bool
) -> tuple[int, Any, bool]:
    """(name index or -1, result or exception, whether it failed) of a task; of an unknown one the result is None."""
    i, at = (0, 0) if isinstance(task, list) else _name(task)
    if i < 0 or i >= len(functions):
        return i, ProtocolError("no name"), True
    function = functions[i]
    if function is None:
        return i, None, True
    try:
        args, kwargs = (task, {}) if isinstance(task, list) else _arguments(task, at, typed=typed)
        return i, function(*args, **kwargs), False
    except BaseException as error:
        return i, error, True


def run_batch(
    batch: bytes,
    resolve: Callable[[bytes], Iterable[Callable[..., Any] | None]],
    failed: Failed,
    foreign: Foreign,
) -> bytes:
    """As `_fastpath.run_batch`, with no limit to the answer, and none to its time."""
    entries = []
    _, sections = _read_batch(batch)
    for section in sections:
        packed = section.format in (layouts.Format.PACKED, layouts.Format.COLUMNS)
        functions = list(resolve(section.head)) if packed else []
        if packed:
            runs = [(0, len(section.tasks))]
        else:
            runs = list(_spans([sum(section.chunks[: k + 1]) for k in range(len(section.chunks))], 0))
        for first, stop in runs:
            tasks, position = section.tasks[first:stop], section.first + first
            if packed:
                body, failures = _run_tasks(section, functions, failed)
            else:
                ends = [sum(map(len, tasks[: k + 1])) for k in range(len(tasks))]
                body, failures = foreign(section.format, section.head, position, ends, b"".join(tasks), 0)
            entries.append(layouts.ENTRY.pack(section.job, position, stop - first, failures, 0, len(body)) + body)
    return layouts.COUNT.pack(len(entries)) + b"".join(entries)


def _run_tasks(section: _Section, functions: Sequence[Callable[..., Any] | None], failed: Failed) -> tuple[bytes, int]:
    body, failures = b"", 0
    late: tuple[int, Any, bool] = (-1, TaskTimeout("too late"), True)
    for position, task in enumerate(section.tasks, section.first):
        is_late = 0 < section.deadline <= time.monotonic_ns()
        i, result, is_failure = late if is_late else _run(task, functions, typed=section.typed)
        if not is_failure and section.reply == ReplyMode.ALL:
            try:
                is_wide = section.format == layouts.Format.COLUMNS
                body += _encode_result(result, wide=is_wide, typed=section.typed)
            except BadArguments as error:
                result, is_failure = TaskFailed(str(error), type="BadArguments"), True
        if not is_failure:
            continue
        failures += 1
        if section.reply == ReplyMode.NONE:
            continue
        body += encode(position) if section.reply == ReplyMode.ERRORS else b""
        body += failed(section.head, i, position, result)
    return body, failures


def _encode_result(result: object, *, wide: bool, typed: bool) -> bytes:
    if wide and type(result) is int and -(2**63) <= result < 2**63:
        return b"\xd3" + result.to_bytes(8, signed=True)
    return encode(result, typed)


def read_answer(answer: bytes) -> list[tuple[int, int, int, int, int, bytes]]:
    """As `_fastpath.read_answer`."""
    frame = _Frame(answer)
    entries = []
    for _ in range(frame.unpack(layouts.COUNT)[0]):
        job, first, count, failures, elapsed_ns, size = frame.unpack(layouts.ENTRY)
        entries.append((job, first, first + count, failures, elapsed_ns, frame.take(size)))
    frame.finish()
    return entries


class Assembly:
    """As `_fastpath.Assembly`."""

    def __init__(self, tasks: int) -> None:
        if tasks < 0:
            raise ProtocolError("fewer than no tasks")
        self._there = [False] * tasks
        self._bodies: dict[tuple[int, int], bytes] = {}

    @property
    def missing(self) -> int:
        return self._there.count(False)

    @property
    def held(self) -> int:
        return sum(map(len, self._bodies.values()))

    def put(self, first: int, stop: int, body: bytes) -> bool:
        if not 0 <= first < stop <= len(self._there):
            raise ProtocolError("out of range")
        if any(self._there[first:stop]):
            raise ProtocolError("twice")
        self._there[first:stop] = [True] * (stop - first)
        self._bodies[first, stop] = body
        return not self.missing

    def lacks(self, position: int) -> bool:
        return 0 <= position < len(self._there) and not self._there[position]

    def gaps(self) -> list[tuple[int, int]]:
        runs, at = [], 0
        for there, group in groupby(self._there):
            stop = at + len(list(group))
            runs += [] if there else [(at, stop)]
            at = stop
        return runs

    def pieces(self) -> list[tuple[int, int, bytes]]:
        if self.missing:
            raise ProtocolError("missing")
        return [(first, stop, body) for (first, stop), body in sorted(self._bodies.items())]

    def bodies(self) -> list[bytes]:
        return [body for *_, body in self.pieces()]

    def join(self) -> bytes:
        return b"".join(self.bodies())
