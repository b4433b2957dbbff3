"""The compiled fast path in plain Python, on msgspec and struct: slow, short, and right by inspection.

It differs from `taskengine._fastpath` only in the texts of its errors, and in `elapsed_ns`, which is 0 here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from taskengine import wire
from taskengine.errors import BadArguments, ProtocolError
from taskengine.messages import ReplyMode

Chunk = tuple[int, int, int, bytes, bytes]
Section = tuple[int, int, int, bytes, Sequence[Chunk]]
Failed = Callable[[bytes, int, int, BaseException | None], bytes]
Foreign = Callable[[int, bytes, int, list[int], bytes], tuple[bytes, int]]

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
    """What begins at `at`; only that the length itself is there has been checked."""
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


def end_of(data: bytes, at: int, depth: int = 0, *, error_entry: bool = False) -> int:
    """Where the value that begins at `at` ends; `error_entry` tells that it may be one."""
    kind, size, at = header(data, at)
    if kind in ("array", "map"):
        if depth >= wire.MAX_DEPTH:
            raise ProtocolError("too deep")
        for _ in range(size if kind == "array" else 2 * size):
            at = end_of(data, at, depth + 1)
        return at
    end = at + size + (kind == "ext")
    if end > len(data):
        raise ProtocolError("the bytes end too early")
    if kind == "ext" and ext_code(data, at) == wire.ERROR_EXT and not error_entry:
        raise ProtocolError("an error entry inside a value")
    return end


def ext_code(data: bytes, at: int) -> int:
    """The signed byte at `at`."""
    code: int = struct.unpack_from("b", data, at)[0]
    return code


def decode(data: bytes) -> Any:
    """The one value that the bytes hold."""
    if end_of(data, 0) != len(data):
        raise ProtocolError("bytes are left over")
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise ProtocolError(str(error)) from None


def encode(value: object) -> bytes:
    """As `_fastpath.encode`."""
    try:
        data = msgspec.msgpack.encode(value)
        if end_of(data, 0) != len(data):
            raise ProtocolError("more than a value")
    except Exception as error:
        raise BadArguments(str(error)) from error
    return data


def _join(values: Iterable[object], small: int, smalls: int, tag: int) -> bytes:
    """An array or map from its elements, which are values of their own."""
    items = [encode(value) for value in values]
    size = len(items) if small == 0x90 else len(items) // 2
    if size < smalls:
        start = bytes([small | size])
    else:
        start = struct.pack(">BH", tag, size) if size <= 0xFFFF else struct.pack(">BI", tag + 1, size)
    return start + b"".join(items)


def _task(i: int, args: Iterable[object], kwargs: Mapping[str, object]) -> bytes:
    if isinstance(args, (str, bytes)) or not all(isinstance(key, str) for key in kwargs):
        raise BadArguments("arguments are a sequence and a mapping with text keys")
    task = bytes([0x93 if kwargs else 0x92]) + encode(i) + _join(args, 0x90, 16, 0xDC)
    if kwargs:
        task += _join((part for pair in kwargs.items() for part in pair), 0x80, 16, 0xDE)
    return task


def _package(tasks: Sequence[bytes]) -> tuple[bytes, bytes]:
    ends = [sum(map(len, tasks[: k + 1])) for k in range(len(tasks))]
    return struct.pack(f"<{len(ends)}I", *ends), b"".join(tasks)


def pack_calls(
    calls: Iterable[tuple[str, Sequence[Any], Mapping[str, Any]]], names: dict[str, int]
) -> tuple[bytes, bytes]:
    """As `_fastpath.pack_calls`."""
    tasks = []
    for position, (name, args, kwargs) in enumerate(calls):
        try:
            encode(name)
            tasks.append(_task(names.setdefault(name, len(names)), args, kwargs))
        except BadArguments as error:
            raise BadArguments(f"call {position}: {error}", name=name) from error
    return _package(tasks)


def pack_map(arguments: Iterable[Sequence[Any]]) -> tuple[bytes, bytes]:
    """As `_fastpath.pack_map`."""
    tasks = []
    for position, args in enumerate(arguments):
        try:
            tasks.append(_task(0, args, {}))
        except BadArguments as error:
            raise BadArguments(f"call {position}: {error}") from error
    return _package(tasks)


def unpack(body: bytes, count: int, error: Callable[[bytes], object]) -> list[Any]:
    """As `_fastpath.unpack`."""
    values: list[Any] = []
    at = 0
    if count < 0:
        raise ProtocolError("fewer than no values")
    for _ in range(min(count, len(body) + 1)):
        kind, _, start = header(body, at)
        end = end_of(body, at, error_entry=True)
        if kind == "ext" and ext_code(body, start) == wire.ERROR_EXT:
            values.append(error(body[start + 1 : end]))
        else:
            values.append(decode(body[at:end]))
        at = end
    if at != len(body):
        raise ProtocolError("bytes are left over")
    return values


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
    if len(index) // 4 > wire.MAX_TASKS:
        raise ProtocolError("too many tasks")
    return len(_ends(index, 0, body_len))


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
        names.append(wire.NO_NAME if i < 0 else min(i, wire.NO_NAME))
    runs, first = [], 0
    for i, group in groupby(names):
        stop = first + len(list(group))
        runs.append((first, stop, i))
        first = stop
    return runs


def _spans(ends: Sequence[int], base: int) -> Iterator[tuple[int, int]]:
    start = 0
    for end in ends:
        yield start, end - base
        start = end - base


def join_frames(frames: Sequence[bytes]) -> tuple[bytes, bytes]:
    """As `_fastpath.join_frames`."""
    if not all(frames):
        raise ProtocolError("a frame is empty")
    return _package(frames)


def pack_batch(sections: Sequence[Section]) -> bytes:
    """As `_fastpath.pack_batch`."""
    parts = [wire.COUNT.pack(len(sections))]
    for job, format, reply, head, chunks in sections:
        parts += [wire.SECTION.pack(job, format, reply, len(head), len(chunks)), head]
        for part, first, stop, index, body in chunks:
            ends = [end for (end,) in struct.iter_unpack("<I", index)]
            if not first < stop <= len(ends):
                raise ProtocolError("no such tasks")
            base, end = ends[first - 1] if first else 0, ends[stop - 1]
            if not base < end <= len(body):
                raise ProtocolError("no such bytes")
            parts.append(wire.CHUNK.pack(part, first, stop - first, base, end - base))
            parts += [index[4 * first : 4 * stop], body[base:end]]
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


class _Chunk(NamedTuple):
    part: int
    first: int
    base: int
    ends: list[int]
    body: bytes


def _read_batch(batch: bytes) -> list[tuple[int, int, int, bytes, list[_Chunk]]]:
    frame = _Frame(batch)
    sections = []
    for _ in range(frame.unpack(wire.COUNT)[0]):
        job, format, reply, head_size, count = frame.unpack(wire.SECTION)
        if format > max(wire.Format) or reply > max(ReplyMode):
            raise ProtocolError("no such format or reply mode")
        head = frame.take(head_size)
        chunks = []
        for _ in range(count):
            part, first, tasks, base, size = frame.unpack(wire.CHUNK)
            index = frame.take(4 * tasks)
            body = frame.take(size)
            chunks.append(_Chunk(part, first, base, _ends(index, base, size), body))
        sections.append((job, format, reply, head, chunks))
    frame.finish()
    return sections


def read_batch(batch: bytes) -> list[tuple[int, int, bytes, list[int]]]:
    """As `_fastpath.read_batch`."""
    return [
        (job, format, head, [chunk.part for chunk in chunks]) for job, format, _, head, chunks in _read_batch(batch)
    ]


def _arguments(task: bytes, at: int) -> tuple[list[Any], dict[str, Any]]:
    def values(expected: str) -> Iterator[bytes]:
        nonlocal at
        kind, size, at = header(task, at)
        if kind != expected:
            raise ProtocolError(f"not a {expected}")
        for _ in range(size if expected == "array" else 2 * size):
            start, at = at, end_of(task, at)
            yield task[start:at]

    args = [decode(value) for value in values("array")]
    pairs = [decode(value) for value in values("map")] if task[0] == 0x93 else []
    if at != len(task):
        raise ProtocolError("bytes are left over")
    if not all(isinstance(key, str) for key in pairs[::2]) or len(set(pairs[::2])) != len(pairs[::2]):
        raise ProtocolError("a keyword that is no text, or came twice")
    return args, dict(zip(pairs[::2], pairs[1::2], strict=True))


def _run(task: bytes, functions: Sequence[Callable[..., Any] | None]) -> tuple[int, Any, bool]:
    """(name index or -1, result or exception, whether it failed) of a task; of an unknown one the result is None."""
    i, at = _name(task)
    if i < 0 or i >= len(functions):
        return i, ProtocolError("no name"), True
    function = functions[i]
    if function is None:
        return i, None, True
    try:
        args, kwargs = _arguments(task, at)
        return i, function(*args, **kwargs), False
    except BaseException as error:
        return i, error, True


def run_batch(
    batch: bytes,
    resolve: Callable[[bytes], Iterable[Callable[..., Any] | None]],
    failed: Failed,
    foreign: Foreign,
) -> bytes:
    """As `_fastpath.run_batch`, with no limit to the answer."""
    entries = []
    for job, format, reply, head, chunks in _read_batch(batch):
        functions = list(resolve(head)) if format == wire.Format.PACKED else []
        for chunk in chunks:
            if format == wire.Format.PACKED:
                body, failures = _run_tasks(chunk, ReplyMode(reply), head, functions, failed)
            else:
                ends = [end - chunk.base for end in chunk.ends]
                body, failures = foreign(format, head, chunk.first, ends, chunk.body)
            entries.append(wire.ENTRY.pack(job, chunk.part, failures, 0, len(body)) + body)
    return wire.COUNT.pack(len(entries)) + b"".join(entries)


def _run_tasks(
    chunk: _Chunk, reply: ReplyMode, head: bytes, functions: Sequence[Callable[..., Any] | None], failed: Failed
) -> tuple[bytes, int]:
    body, failures = b"", 0
    for position, (start, stop) in enumerate(_spans(chunk.ends, chunk.base), chunk.first):
        i, result, is_failure = _run(chunk.body[start:stop], functions)
        if not is_failure and reply == ReplyMode.ALL:
            try:
                body += encode(result)
            except BadArguments as error:
                result, is_failure = error, True
        if not is_failure:
            continue
        failures += 1
        if reply == ReplyMode.NONE:
            continue
        body += (encode(position) if reply == ReplyMode.ERRORS else b"") + failed(head, i, position, result)
    return body, failures


def read_answer(answer: bytes) -> list[tuple[int, int, int, int, bytes]]:
    """As `_fastpath.read_answer`."""
    frame = _Frame(answer)
    entries = []
    for _ in range(frame.unpack(wire.COUNT)[0]):
        job, part, failures, elapsed_ns, size = frame.unpack(wire.ENTRY)
        entries.append((job, part, failures, elapsed_ns, frame.take(size)))
    frame.finish()
    return entries


class Assembly:
    """As `_fastpath.Assembly`."""

    def __init__(self, parts: int) -> None:
        if parts < 0:
            raise ProtocolError("fewer than no parts")
        self._parts = parts
        self._bodies: dict[int, bytes] = {}

    @property
    def missing(self) -> int:
        return self._parts - len(self._bodies)

    def put(self, part: int, body: bytes) -> bool:
        if self.has(part):
            raise ProtocolError("twice")
        self._bodies[part] = body
        return not self.missing

    def has(self, part: int) -> bool:
        if not 1 <= part <= self._parts:
            raise ProtocolError("out of range")
        return part in self._bodies

    def bodies(self) -> list[bytes]:
        if self.missing:
            raise ProtocolError("missing")
        return [body for _, body in sorted(self._bodies.items())]

    def join(self) -> bytes:
        return b"".join(self.bodies())

    def held(self) -> int:
        return sum(map(len, self._bodies.values()))
