"""TASK frames of wire 0.1 in plain Python, on msgspec: slow, short, and right by inspection."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec

from taskengine.errors import ProtocolError
from taskengine.seedwire import SeedTask


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
