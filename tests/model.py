"""The compiled fast path in plain Python, on msgspec and struct: slow, short, and right by inspection.

The client's part is `taskengine._plain_codec`, which the client for other machines ships. It differs from
`taskengine._fastpath` only in the texts of its errors, and in `elapsed_ns`, which is 0 here.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from taskengine._plain_codec import check_index as check_index  # these are looked up here by their names
from taskengine._plain_codec import decode as decode
from taskengine._plain_codec import encode as encode
from taskengine._plain_codec import end_of as end_of
from taskengine._plain_codec import ends_of, name_of, spans
from taskengine._plain_codec import find_tasks as find_tasks
from taskengine._plain_codec import header as header
from taskengine._plain_codec import pack_calls as pack_calls
from taskengine._plain_codec import pack_map as pack_map
from taskengine._plain_codec import unpack as unpack
from taskengine.errors import BadArguments, ProtocolError, TaskFailed, TaskTimeout
from taskengine.protocol import layouts, limits
from taskengine.protocol.messages import ReplyMode

Section = tuple[int, int, int, int, bytes, bytes, bytes, int, int, int, int, int, int]
Failed = Callable[[bytes, int, int, BaseException | None], bytes]
Foreign = Callable[[int, bytes, int, list[int], bytes, int], tuple[bytes, int]]


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


def task_names(index: bytes, body: bytes) -> list[tuple[int, int, int]]:
    """As `_fastpath.task_names`."""
    check_index(index, len(body))
    names = []
    for start, stop in spans(ends_of(index, 0, len(body)), 0):
        i, _ = name_of(body[start:stop])
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
            slices = [body[start:stop] for start, stop in spans(ends_of(index, base, size), base)]
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
    i, at = (0, 0) if isinstance(task, list) else name_of(task)
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
            runs = list(spans([sum(section.chunks[: k + 1]) for k in range(len(section.chunks))], 0))
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
