"""Batches for a worker's turn, and what it tells of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from taskengine import _fastpath, wire
from taskengine.messages import ReplyMode

Functions = list[Callable[..., Any] | None]


def no_error(data: bytes) -> object:
    raise AssertionError(f"an error entry came: {data!r}")


def entry(data: bytes) -> bytes:
    """An error entry."""
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(wire.ERROR_EXT, data))


class Failures(list[tuple[int, int, BaseException | None]]):
    """What a turn told of failed tasks: (name index, position, exception)."""

    def __call__(self, head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
        self.append((i, position, error))
        return entry(b"")


def batch_of(tasks: list[bytes], size: int | None = None, reply: int = ReplyMode.ALL) -> bytes:
    """A batch of one package, in chunks of `size`."""
    index, body = _fastpath.join_frames(tasks)
    size = size or len(tasks)
    cuts = range(0, len(tasks), size)
    chunks = [(part, first, min(first + size, len(tasks)), index, body) for part, first in enumerate(cuts, 1)]
    return _fastpath.pack_batch([(1, wire.Format.PACKED, reply, b"", chunks)])


def task(i: int, *args: object, **kwargs: object) -> bytes:
    return msgspec.msgpack.encode([i, args, kwargs] if kwargs else [i, args])


def run(tasks: list[bytes], functions: Functions, failed: Failures | None = None, **how: Any) -> bytes:
    """The bodies of the answer, end to end."""
    failures = Failures() if failed is None else failed
    answer = _fastpath.run_batch(batch_of(tasks, **how), lambda head: functions, failures, lambda *_: (b"", 0))
    return b"".join(body for *_, body in _fastpath.read_answer(answer))
