"""Wire 0.1 at the router and the worker: any frames give a package that is answered, or our ProtocolError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from taskengine import _fastpath
from taskengine.broker import legacy_json
from taskengine.broker.legacy_json import LegacyPackage, TaskFrames
from taskengine.broker.package import encode_head
from taskengine.errors import ProtocolError, TaskEngineError, TaskFailed, UnknownTask, text_of
from taskengine.protocol import layouts, limits
from taskengine.protocol.messages import NOWHERE
from taskengine.router.package_lines import request_meta
from tests import seed_model
from tests.batches import Failures, join_frames, no_foreign, section_of
from tests.fuzz.inputs import TEXT_SEPARATOR, joined

MAX_BYTES = 600
TOKENS = [
    *(
        b'"type": "REQ"',
        b'"type": "PUB"',
        b'"type": "GET"',
        b'"serial": ',
        b'"pack": ',
        b'"length": 1',
        b'"topic": "t"',
    ),
    *(b'"task": "echo"', b'"task": "count"', b'"task": "fail"', b'"args": [', b'"kwargs": {', b'"data": {"topic": "t"'),
    *(b"\\u00e9", b"\\ud83d\\ude00", b"\\ud800", b"1e999", b"-0.0", b"NaN", b"null", TEXT_SEPARATOR),
]
LANES = {"count": "", "fail": "arm"}


def seeds() -> list[bytes]:
    """A message of each kind."""
    meta = b'{"id": "C", "role": "requestor", "version": 0.1, "type": "%b", "pack": 1483507553.3, "serial": "s"}'
    task = b'{"task": "%b", "args": %b, "kwargs": %b, "pack": "p"}'
    messages: list[list[bytes]] = [
        [meta % b"REQ"],
        [meta % b"REQ", task % (b"count", b"[2, 3]", b"{}")],
        [meta % b"REQ", *[task % (b"echo", b'[{"a": [1, null, true]}]', b'{"k": 1e-7}')] * 3],
        [meta % b"REQ", task % (b"fail", b"[]", b"{}"), task % (b"none", b"[-0.0]", b"{}")],
        [meta % b"PUB", b'{"data": {"topic": "cpu", "value": [1, "x"]}}'],
        [meta % b"GET", b'{"data": {"topic": "cpu"}}'],
        [b'{"length": null, "serial": "", "pack": 12345678901234567890}', b'{"task": "echo", "pack": 1e22}'],
        [b'{"length": 2, "serial": 7}', '{"task": "echö", "args": ["\\u00e9\\ud83d\\ude00\\n", "日本語"]}'.encode()],
        [b'{"type": "ACK"}', b"{}"],
        [b"[]"],
        [b'{"pack": {}}', b'{"task": 1}'],
        [b'{"type":"REQ"}', b' { "task" : "count" , "args" : [ 2.5 , 1E5 ] , "args": [1, 2] } '],
        [b'{"type":"REQ"}', b'{"task":"echo","args":[' + b"[" * 70 + b"]" * 70 + b"]}"],
        [b'{"type":"REQ"}', b'{"task":"echo","args":[' + b"9" * 30 + b",0.1234567890123456789,1e-400]}"],
        [b'{"type":"REQ"}', rb'{"t\u0061sk":"keep","arg\u0073":["\ud800"]}'],
    ]
    return [joined(frames, TEXT_SEPARATOR) for frames in messages]


KEPT: list[Any] = []


def _fail(*args: Any) -> Any:
    raise [ValueError, TypeError, KeyboardInterrupt, SystemExit, UnknownTask][len(str(args)) % 5](args)


def _count(a: Any, b: Any) -> Any:
    return (a + b) / 2


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "echo": lambda *args, **kwargs: args[0] if args else kwargs,
    "ech\u00f6": lambda *args, **kwargs: [args, kwargs],
    "count": _count,
    "keep": KEPT.append,
    "fail": _fail,
}


def _failure(name: str, error: BaseException | None) -> TaskEngineError:
    if isinstance(error, TaskEngineError):
        return error
    return UnknownTask(f"no {name}") if error is None else TaskFailed(f"{type(error).__name__}: {text_of(error)}")


def _outcome(function: Callable[..., Any], *args: Any) -> object:
    try:
        return function(*args)
    except ProtocolError as error:
        return str(error)


def fuzz(data: bytes) -> None:
    """A message, as the router gets it."""
    meta, *frames = data.split(TEXT_SEPARATOR)
    index, body = join_frames(frames)
    names = _outcome(_fastpath.frame_names, index, body, seed_model.name_of)
    assert names == _outcome(seed_model.frame_names, frames)
    try:
        package = legacy_json.read_package((), meta, index, body, LANES, 1, NOWHERE)
    except ProtocolError as error:
        _check_refusal(legacy_json.malformed(meta, error), error)
        return
    _check_refusal(package.refusal(ProtocolError("no")), ProtocolError("no"))
    package.cut(2, {"": 2})
    msgspec.json.decode(request_meta(package))
    if package.format == layouts.Format.LEGACY_JSON and package.count:
        _check_run(package, frames)
    for piece in package.pieces_of(ProtocolError("no"), 0, package.count):
        package.results.put(*piece)
    package.results.failed = package.count
    answer = [msgspec.json.decode(frame if isinstance(frame, bytes) else b"".join(frame)) for frame in package.answer()]
    assert answer[0]["size"] == answer[0]["part"] == len(answer) - 1
    if package.format == layouts.Format.LEGACY_JSON:
        assert [len(frame["data"]) for frame in answer[1:]] == [
            stop - first for _, first, stop in package.flight.chunks.between(0, package.count)
        ]
        assert all(frame["errors"] == list(range(len(frame["data"]))) for frame in answer[1:])


def _check_refusal(message: Any, error: ProtocolError) -> None:
    (frame,) = message
    assert msgspec.json.decode(frame)["error"] == str(error)


def _check_run(package: LegacyPackage, frames: list[bytes]) -> None:
    """The worker does what the model does, with the same arguments."""
    pack = bytes(package.pack)
    section = section_of(
        (package.index, package.body), format=layouts.Format.LEGACY_JSON, head=encode_head("serial", pack)
    )
    batch = _fastpath.pack_batch(1, 0, [section])
    KEPT.clear()
    answer = _fastpath.run_batch(batch, lambda head: [], Failures(), no_foreign, TaskFrames(FUNCTIONS.get, _failure))
    ((_, _, _, failed, _, body),) = _fastpath.read_answer(answer)
    kept = repr(KEPT)
    KEPT.clear()
    assert (body, failed) == seed_model.run_chunk(pack, frames, FUNCTIONS.get, _failure, limits.MAX_BODY)
    assert kept == repr(KEPT)
