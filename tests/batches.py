"""Batches for a worker's turn, and what it tells of them."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from taskengine import _fastpath
from taskengine.protocol import layouts
from taskengine.protocol.messages import ReplyMode

Section = tuple[int, int, int, int, bytes, bytes, bytes, int, int, int, int, int, int]
Functions = list[Callable[..., Any] | None]


def no_error(data: bytes) -> object:
    raise AssertionError(f"an error entry came: {data!r}")


def entry(data: bytes) -> bytes:
    """An error entry."""
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(layouts.ERROR_EXT, data))


def join_frames(frames: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The (index, body) of a package with these tasks."""
    return struct.pack(f"<{len(frames)}I", *itertools.accumulate(map(len, frames))), b"".join(frames)


class Failures(list[tuple[int, int, BaseException | None]]):
    """The failed tasks that a turn reported: (name index, position, exception)."""

    def __call__(self, head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
        self.append((i, position, error))
        return entry(b"")


def section_of(
    package: tuple[bytes, bytes],
    first: int = 0,
    stop: int | None = None,
    *,
    sizes: tuple[int, int, int] | None = None,
    job: int = 1,
    format: int = layouts.Format.PACKED,
    reply: int = ReplyMode.ALL,
    deadline: int = 0,
    head: bytes = b"",
) -> Section:
    """A slice of a package, (index, body); `sizes` are lead, larger and size, one chunk where there are none."""
    stop = len(package[0]) // 4 if stop is None else stop
    return (job, format, reply, deadline, head, *package, 1, first, stop, *(sizes or (stop - first, 0, 0)))


def batch_of(tasks: list[bytes], size: int | None = None, slice_ns: int = 0, **how: Any) -> bytes:
    """A batch of one package, in chunks of `size`."""
    sizes = (min(size, len(tasks)), 0, size) if size else None
    return _fastpath.pack_batch(1, slice_ns, [section_of(join_frames(tasks), sizes=sizes, **how)])


def no_foreign(*_: object) -> tuple[bytes, int]:
    """A batch with nothing of another format."""
    raise AssertionError("a chunk of another format")


def task(i: int, *args: object, **kwargs: object) -> bytes:
    return msgspec.msgpack.encode([i, args, kwargs] if kwargs else [i, args])


def run(tasks: list[bytes], functions: Functions, failed: Failures | None = None, **how: Any) -> bytes:
    """The bodies of the answer, end to end."""
    failures = Failures() if failed is None else failed
    answer = _fastpath.run_batch(batch_of(tasks, **how), lambda head: functions, failures, no_foreign)
    return b"".join(body for *_, body in _fastpath.read_answer(answer))
