"""TASK frames of wire 0.1, compiled: what is plain needs no Python, what is not costs nobody anything else."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from taskengine import _fastpath, wire
from taskengine.errors import ProtocolError
from tests.batches import join_frames

HASH = "0123456789abcdef" * 2


def frame(task: str, *args: object, pack: object = HASH, **kwargs: object) -> bytes:
    return json.dumps({"task": task, "args": args, "kwargs": kwargs, "pack": pack}).encode()


def no_decoding(frame: bytes, position: int) -> str:
    raise AssertionError(frame)


# ---- the router


PLAIN = [
    frame("task_count", 2, 3),
    frame("task_count", 2.5, -1e-7, "text", 'a "quote"', "\n", "é", True, False, None, [1, [2, {"x": []}]]),
    frame("task_count", pack=1483507553.307392, times=3),
    b'{"task":"task_count"}',
    b' { "pack" : 7 , "more" : {} , "kwargs" : { } ,\n"args" : [ ] , "task"\t: "task_count" } \r',
    '{"task":"task_count","args":["é日😀"],"pack":"é"}'.encode(),
]
UNSURE = {
    "an escaped name": rb'{"task":"t\u0061sk_count"}',
    "an escaped key": rb'{"t\u0061sk":"task_count"}',
    "a key twice": b'{"task":"x","task":"task_count"}',
    "half a character": rb'{"task":"task_count","args":["\ud83d\ude00"]}',
    "a large number": b'{"task":"task_count","args":[1234567890123456789]}',
    "deep nesting": b'{"task":"task_count","args":' + b"[" * 40 + b"]" * 40 + b"}",
}


@pytest.mark.parametrize("plain", PLAIN)
def test_plain_frames_are_read_without_python(plain: bytes) -> None:
    assert _fastpath.frame_names(*join_frames([plain]), no_decoding) == [(0, 1, "task_count")]


@pytest.mark.parametrize("unsure", UNSURE.values(), ids=UNSURE)
def test_what_is_not_sure_is_asked_for(unsure: bytes) -> None:
    asked: list[tuple[bytes, int]] = []

    def decode(frame: bytes, position: int) -> str:
        asked.append((frame, position))
        return "task_count"

    frames = [PLAIN[0], unsure, PLAIN[0]]
    assert _fastpath.frame_names(*join_frames(frames), decode) == [(0, 3, "task_count")]
    assert asked == [(unsure, 1)]


def test_runs_of_names() -> None:
    names = ["a", "a", "é", "a", "ab", "a", "a", ""]
    runs = _fastpath.frame_names(
        *join_frames([frame(name).replace(b"\\u00e9", "é".encode()) for name in names]), no_decoding
    )
    assert runs == [(0, 2, "a"), (2, 3, "é"), (3, 4, "a"), (4, 5, "ab"), (5, 7, "a"), (7, 8, "")]
    assert _fastpath.frame_names(b"", b"", no_decoding) == []


@pytest.mark.parametrize(
    ("ends", "body", "why"),
    [
        ((0,), b"", "a frame is empty"),
        ((2, 2, 4), b"{}{}", "a frame is empty"),
        ((2, 1, 4), b"{}{}", "ends task 1 before it begins"),
        ((2,), b"{}{}", "tells of 2 bytes"),
        ((5,), b"{}{}", "tells of 5 bytes"),
        ((wire.MAX_BODY, wire.MAX_BODY + 1), b"", f"at most {wire.MAX_BODY} bytes"),
        (range(1, wire.MAX_TASKS + 2), b"", f"at most {wire.MAX_TASKS} tasks, not {wire.MAX_TASKS + 1}"),
    ],
)
def test_an_index_that_is_none(ends: Any, body: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        _fastpath.frame_names(struct.pack(f"<{len(ends)}I", *ends), body, lambda frame, position: "")


def test_what_decoding_raises_passes_through() -> None:
    def decode(frame: bytes, position: int) -> str:
        raise LookupError(position)

    with pytest.raises(LookupError, match="1"):
        _fastpath.frame_names(*join_frames([PLAIN[0], b"[]"]), decode)
