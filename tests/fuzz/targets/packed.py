"""Wire 0.2 at the router: any frames give a package that is cut and answered, or our ProtocolError."""

from __future__ import annotations

import contextlib

import msgspec

from taskengine import _fastpath
from taskengine.broker import binary
from taskengine.errors import ProtocolError
from taskengine.protocol import layouts
from taskengine.protocol.messages import (
    NOWHERE,
    Cancel,
    ReplyMode,
    Request,
    RequestKind,
    WatchedStream,
    decode_cancel,
    decode_reply,
    decode_request,
    encode_request,
    serial_of,
    wanting_progress,
)
from taskengine.router.package_lines import request_meta
from tests.batches import join_frames, task
from tests.fuzz.inputs import SEPARATOR, joined, number
from tests.twins import same

MAX_BYTES = 500
TOKENS = [
    *(layouts.MAGIC, SEPARATOR, b"\x99\x01", b"\x99\x04", b"\x99\x05", b"\x99\x07", b"\xaatask_count", b"\xc2\xc3"),
    *(b"\xcb" + bytes(8), b"\x92\x00", b"\x93\x00", b"\xcf" + bytes(8), b"\xdd" + bytes(4), b"\xdf" + bytes(4)),
    *(b"\xcb\x7f\xf8" + bytes(6), b"\xd3" + b"\xff" * 8, b"\xce\xff\xff\xff\xff", b"fi"),
]
LANES = {"task_count": "", "arm.wave": "arm", "io.read": "io"}
RAW, TASKS, COLUMNS = range(3)
"""Meanings of an input's first byte: frames as they come, tasks that are to be joined, columns to be trimmed."""


def seeds() -> list[bytes]:
    """A message of each kind, and of each way to hold tasks."""

    def head(kind: RequestKind, names: list[str] | None = None, **how: object) -> bytes:
        return encode_request(msgspec.structs.replace(Request(kind, 7, "ARM", names or []), **how))

    names = ["task_count", "arm.wave", "none"]
    tasks = [task(0, 2, 3), task(1, times=2), task(2, [None, {"a": 1.5}]), task(0, -1, 2**40)]
    cancel = msgspec.msgpack.encode(Cancel(3, [0, 5, 2]))
    messages = [
        (RAW, [head(kind) for kind in (RequestKind.INFO,)]),
        *(
            (RAW, [head(kind)])
            for kind in (RequestKind.TASKS, RequestKind.PROGRESS, RequestKind.STATS, RequestKind.RELOAD)
        ),
        (RAW, [head(RequestKind.CANCEL), cancel]),
        (RAW, [head(RequestKind.CANCEL), msgspec.msgpack.encode(Cancel())]),
        (RAW, [head(RequestKind.PUBLISH), b"\x92\xa3cpu\xcb\x3f\xf0\0\0\0\0\0\0"]),
        (RAW, [head(RequestKind.LATEST), b"\x91\xa3cpu"]),
        (RAW, [head(RequestKind.PACKAGE, names), *join_frames(tasks)]),
        (RAW, [head(RequestKind.PACKAGE, []), b"", b""]),
        (TASKS, [head(RequestKind.PACKAGE, names), *tasks]),
        (TASKS, [head(RequestKind.PACKAGE, ["task_count"], idempotent=True, deadline=1.5), *tasks[:1] * 5]),
        (TASKS, [head(RequestKind.PACKAGE, names, reply=ReplyMode.ERRORS), *reversed(tasks)]),
        (
            TASKS,
            [head(RequestKind.PACKAGE, names, reply=ReplyMode.NONE), b"\x92\xcd\x00\x01\x90", b"\x92\xd1\xff\xff\x90"],
        ),
        (
            TASKS,
            [head(RequestKind.PACKAGE, names), b"\x92\xcf" + bytes([255] * 8), b"\x92\xce\xff\xff\xff\xff", b"\x92"],
        ),
        (COLUMNS, [head(RequestKind.PACKAGE, ["task_count"], columns=True), b"if", bytes(range(64))]),
        (COLUMNS, [head(RequestKind.PACKAGE, ["arm.wave"], columns=True), b"f", b""]),
        (TASKS, [wanting_progress(head(RequestKind.PACKAGE, names)), *tasks]),
        (TASKS, [encode_request(WatchedStream(RequestKind.PACKAGE, 7, "ARM", names, ReplyMode.STREAM)), tasks[0]]),
    ]
    return [bytes([mode]) + joined(frames) for mode, frames in messages]


def frames_of(data: bytes) -> list[bytes]:
    """The frames that an input stands for."""
    head, *frames = data[1:].split(SEPARATOR)
    mode = number(data) % 3
    if mode == TASKS:
        return [head, *join_frames(frames)]
    if mode == COLUMNS and len(frames) == 2:
        row = 8 * max(len(frames[0]), 1)
        return [head, frames[0], frames[1][: len(frames[1]) // row * row]]
    return [head, *frames]


def fuzz(data: bytes) -> None:
    """A message, as the router gets it."""
    frames = frames_of(data)
    serial_of(frames[0])
    for place, frame in enumerate(frames[1:3], 1):
        same("read_topic", frame)
        same("check_columns", frame, len(frames[-1]))
        same("check_index", frame, len(frames[-1]))
        if place + 1 < len(frames):
            same("task_names", frame, frames[place + 1])
            same("used_names", frame, frames[place + 1])
            same("find_tasks", frame, frames[place + 1], b"\0\1\1", 2)
    with contextlib.suppress(ProtocolError):
        decode_reply(frames[0])
    try:
        request = decode_request(frames[0])
        assert repr(decode_request(encode_request(request))) == repr(request)
        assert serial_of(frames[0]) == request.serial
        if request.kind in (RequestKind.PACKAGE, RequestKind.PUBLISH, RequestKind.LATEST):
            _check_package(binary.read_package((), request, frames, LANES, 1, NOWHERE))
        elif request.kind == RequestKind.CANCEL:
            cancel = decode_cancel(frames)
            assert decode_cancel([b"", msgspec.msgpack.encode(cancel)]) == cancel
    except ProtocolError:
        return


def _check_package(package: binary.BinaryPackage) -> None:
    """It is cut into all of its tasks, each slice is what a worker reads, and refusing all of them answers it."""
    package.cut(2, {"": 2})
    request_meta(package)
    chunks = list(package.flight.chunks.between(0, package.count))
    assert [part for part, _, _ in chunks] == list(range(1, package.flight.chunks.count + 1))
    places = [0, *(stop for _, _, stop in chunks)]
    assert places[-1] == package.count
    assert [first for _, first, _ in chunks] == places[:-1]
    for run in package.flight.chunks.runs:
        sections = [package.section(run, run.first, run.stop)]
        if same("pack_batch", 1, 0, sections)[0] == "gave":
            same("read_batch", _fastpath.pack_batch(1, 0, sections))
    if package.count:
        package.name_of(package.count - 1)
    for piece in package.pieces_of(ProtocolError("no"), 0, package.count):
        package.results.put(*piece)
    assert package.results.missing == 0
    package.results.failed = package.count
    head, *body = package.answer()
    assert isinstance(head, bytes)
    reply = decode_reply(head)
    if package.data_request is not None:  # which is no package to its client
        assert (reply.count, reply.error is not None, body) == (0, True, [])
        return
    assert reply.count == package.count
    assert len(body) == (package.reply_mode != ReplyMode.NONE)
