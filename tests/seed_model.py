"""TASK frames of wire 0.1 in plain Python, on msgspec: slow, short, and right by inspection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import msgspec

from taskengine.errors import BadArguments, ProtocolError, TaskEngineError, text_of
from taskengine.seedwire import SeedTask, result_text

MARK_ROOM = 9
"""Bytes that an error takes beside its text."""


class _Echo(msgspec.Struct):
    """A TASK frame whose pack is told as it came."""

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    pack: msgspec.Raw = msgspec.Raw(b'""')


def name_of(frame: bytes, position: int) -> str:
    """The name of the task in a TASK frame."""
    try:
        return msgspec.json.decode(frame, type=SeedTask).task
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolError(f"TASK frame {position + 1}: {error}") from None


def frame_names(frames: Sequence[bytes]) -> list[tuple[int, int, str]]:
    """As `_fastpath.frame_names`, of frames that are not joined."""
    if not all(frames):
        raise ProtocolError("a frame is empty")
    runs, first = [], 0
    for name, group in groupby([name_of(frame, position) for position, frame in enumerate(frames)]):
        stop = first + len(list(group))
        runs.append((first, stop, name))
        first = stop
    return runs


def run_chunk(
    pack: bytes,
    frames: Sequence[bytes],
    find: Callable[[str], Callable[..., Any] | None],
    failure: Callable[[str, BaseException | None], TaskEngineError],
    room: int,
) -> tuple[bytes, int]:
    """The DATA frame of a chunk, and how many of its tasks failed."""
    entries: list[str] = []
    errors: list[int] = []
    for frame in frames:
        task = msgspec.json.decode(frame, type=_Echo)
        raw = bytes(task.pack)
        label = msgspec.json.decode(raw) if raw.startswith(b'"') else raw.decode()
        try:
            entry = f"job-{label}: {result_text(_call(task, find, failure))}"
            if len(msgspec.json.encode(entry)) > room:
                raise BadArguments("the results of this answer take more than 67108864 bytes")
        except TaskEngineError as error:
            entry = f"job-{label}: ERROR: {text_of(error)}"
            errors.append(len(entries))
            room -= MARK_ROOM
        entries.append(entry)
        room -= len(msgspec.json.encode(entry))
    texts = [b" " * (place in errors) + msgspec.json.encode(entry) for place, entry in enumerate(entries)]
    listed = msgspec.Raw(b"[%b]" % b",".join(texts))
    data = {"size": len(entries), "data": listed, "pack": msgspec.Raw(pack), "errors": errors}
    return msgspec.json.encode(data), len(errors)


def _call(
    task: _Echo,
    find: Callable[[str], Callable[..., Any] | None],
    failure: Callable[[str, BaseException | None], TaskEngineError],
) -> Any:
    function = find(task.task)
    if function is None:
        raise failure(task.task, None)
    try:
        return function(*task.args, **task.kwargs)
    except BaseException as error:
        raise failure(task.task, error) from None
