"""The golden messages of wire 0.1: frames as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from taskengine import _fastpath, errors
from taskengine.broker import legacy_json
from taskengine.errors import TaskEngineError
from taskengine.protocol.messages import NOWHERE
from tests.batches import join_frames


def seed_messages(error: TaskEngineError) -> Iterator[dict[str, Any]]:
    """Return the messages; `error` is what a task of one of them raised."""

    def meta(**more: Any) -> dict[str, Any]:
        return {"id": "CLIENT", "role": "requestor", "version": 0.1, "type": "REQ", "pack": 1483507553.307392, **more}

    def task(name: str, *args: Any, pack: Any) -> dict[str, Any]:
        return {"task": name, "args": args, "kwargs": {}, "pack": pack}

    def read(frames: list[dict[str, Any]]) -> legacy_json.LegacyPackage:
        texts = [json.dumps(frame).encode() for frame in frames]
        found = legacy_json.read_package((), texts[0], *join_frames(texts[1:]), {"task_count": ""}, 1, NOWHERE)
        found.results.worker = "TASK-4712"
        return found

    frames = [meta(length=2, serial="s7"), task("task_count", 2, 3, pack="a1"), task("steer", pack="a2")]
    yield seed("a package", frames, seed_answer(read(frames), ["2.5", error]))
    frames = [meta(serial="s8"), task("task_echo", "ERROR: not one", pack="a1")]
    yield seed("a result that reads like an error", frames, seed_answer(read(frames), ["ERROR: not one"]))
    frames = [{}]
    yield seed("the shortest message", frames, None)
    frames = [meta(length=3, serial="s9"), task("task_count", 2, 3, pack="a1")]
    wrong = legacy_json.malformed(
        json.dumps(frames[0]).encode(), errors.ProtocolError("META frame: length is 3, and 1 TASK frames came")
    )
    yield seed("a wrong length", frames, texts_of(wrong))
    frames = [meta(type="PUB", serial="s10"), {"data": {"topic": "arm.state", "value": {"angle": 30}}}]
    found = read(frames)
    found.results.worker = "DATA-4713"
    found.results.put(0, 1, _fastpath.encode(None))
    yield seed("PUB", frames, texts_of(found.answer()))
    frames = [meta(type="GET", serial="s11"), {"data": {"topic": "arm.state"}}]
    found = read(frames)
    found.results.worker = "DATA-4713"
    found.results.put(0, 1, legacy_json.data_frame({"angle": 30}, msgspec.Raw(bytes(found.pack))))
    yield seed("GET", frames, texts_of(found.answer()))


def seed_answer(found: legacy_json.LegacyPackage, results: Sequence[str | TaskEngineError]) -> list[str]:
    """Return the reply to a package whose tasks were one chunk."""
    results = list(results)
    labels = [json.loads(found._frame(position))["pack"] for position in range(found.count)]
    frames = legacy_json.TaskFrames(lambda name: None, lambda name, error: errors.ProtocolError(""))
    entries = []
    for label, result in zip(labels, results, strict=True):
        is_error = isinstance(result, TaskEngineError)
        told = f"ERROR: {result}" if is_error else result
        entries.append(b" " * is_error + frames.tell(label, told, 1000)[0])
    found.results.put(0, found.count, found.mend(found.count, b",".join(entries)))
    return texts_of(found.answer())


def texts_of(frames: Sequence[bytes | list[bytes]]) -> list[str]:
    return [(frame if isinstance(frame, bytes) else b"".join(frame)).decode() for frame in frames]


def seed(name: str, frames: Sequence[Any], reply: list[str] | None) -> dict[str, Any]:
    told = {} if reply is None else {"reply": reply}
    return {"name": name, "request": [json.dumps(frame) for frame in frames], **told}
