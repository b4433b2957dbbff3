"""TASK frames of wire 0.1, compiled: what is plain needs no Python, what is not costs nobody anything else."""

from __future__ import annotations

import gc
import json
import struct
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from taskengine import _fastpath
from taskengine.broker import legacy_json
from taskengine.broker.legacy_json import TaskFrames
from taskengine.broker.package import encode_head
from taskengine.errors import ProtocolError, TaskEngineError, UnknownTask
from taskengine.protocol import layouts, limits
from taskengine.protocol.messages import NOWHERE
from taskengine.worker.worker import as_failure
from tests.batches import Failures, join_frames, no_foreign, section_of

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
        ((limits.MAX_BODY, limits.MAX_BODY + 1), b"", f"at most {limits.MAX_BODY} bytes"),
        (range(1, limits.MAX_TASKS + 2), b"", f"at most {limits.MAX_TASKS} tasks, not {limits.MAX_TASKS + 1}"),
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


# ---- the worker


class Watched(TaskFrames):
    """Notes what is asked of Python."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        super().__init__(self.look_up, self.failure)
        self.functions = functions
        self.asked: list[str] = []
        self.errors: list[BaseException | None] = []

    def look_up(self, name: str) -> Callable[..., Any] | None:
        self.asked.append(f"find {name}")
        return self.functions.get(name)

    def failure(self, name: str, error: BaseException | None) -> TaskEngineError:
        self.errors.append(error)
        return UnknownTask(f"no {name}") if error is None else as_failure(name, error)

    def run(self, frame: bytes, room: int) -> tuple[bytes, int]:
        self.asked.append("run")
        return super().run(frame, room)

    def tell(self, label: str, result: Any, room: int) -> tuple[bytes, bool]:
        self.asked.append(f"tell {label}")
        return super().tell(label, result, room)


def run(frames: list[bytes], python: TaskFrames, size: int = 50, pack: bytes = b"1.50") -> list[tuple[bytes, int]]:
    """The DATA frame of each chunk and how many of its tasks failed."""
    section = section_of(
        join_frames(frames),
        sizes=(min(size, len(frames)), 0, size),
        format=layouts.Format.LEGACY_JSON,
        head=encode_head("serial", pack),
    )
    batch = _fastpath.pack_batch(1, 0, [section])
    answer = _fastpath.run_batch(batch, lambda head: [], Failures(), no_foreign, python)
    return [(body, failed) for _, _, _, failed, _, body in _fastpath.read_answer(answer)]


def test_a_chunk_is_answered_by_a_data_frame() -> None:
    python = Watched({"half": lambda a: a / 2, "echo": lambda *args: args[0]})
    frames = [frame("half", 5), frame("half", 3, pack=7), frame("echo", "é"), frame("echo", None), frame("echo", True)]
    assert run(frames, python, 3) == [
        (f'{{"size":3,"data":["job-{HASH}: 2.5","job-7: 1.5","job-{HASH}: é"],"pack":1.50,"errors":[]}}'.encode(), 0),
        (f'{{"size":2,"data":["job-{HASH}: None","job-{HASH}: True"],"pack":1.50,"errors":[]}}'.encode(), 0),
    ]


def test_plain_tasks_ask_only_for_functions() -> None:
    python = Watched({"half": lambda a: a / 2, "other": len})
    run([frame("half", k) for k in range(20)] + [frame("other", "text")] * 2 + [frame("half", 1)], python, 5)
    assert python.asked == ["find half", "find other", "find half"]


@pytest.mark.parametrize("keywords", [{}, {"b": 1}])
def test_a_task_that_may_run_again_has_a_data_frame_of_its_own(keywords: dict[str, int]) -> None:
    def work(a: int, b: int = 0) -> int:
        if a == 2:
            raise OSError("gone")
        if a == 3:
            raise KeyError("gone")
        return a

    class Retrying(Watched):
        def __init__(self) -> None:
            TaskFrames.__init__(
                self, self.look_up, self.failure, may_retry=lambda name, error: isinstance(error, OSError)
            )
            self.functions, self.asked, self.errors = {"work": work}, [], []

    frames = [frame("work", a, pack=a, **keywords) for a in (1, 2, 3, 4, 2)]
    found = run(frames, Retrying(), 4)
    assert found == [
        (b'{"size":1,"data":["job-1: 1"],"pack":1.50,"errors":[]}', 0),
        (b'{"size":1,"data":[ "job-2: ERROR: OSError: gone"],"pack":1.50,"errors":[0]}', layouts.MAY_RETRY | 1),
        (b'{"size":2,"data":[ "job-3: ERROR: KeyError: \'gone\'","job-4: 4"],"pack":1.50,"errors":[0]}', 1),
        (b'{"size":1,"data":[ "job-2: ERROR: OSError: gone"],"pack":1.50,"errors":[0]}', layouts.MAY_RETRY | 1),
    ]


def test_what_is_not_plain_runs_once_all_the_same() -> None:
    ran: list[object] = []

    def note(*args: object, **kwargs: object) -> object:
        ran.append((args, kwargs))
        return [len(ran)]

    python = Watched({"note": note, "list": lambda *args: list(args)})
    frames = [
        frame("note", a=1),
        frame("note", [2]),
        frame("note", 3),
        frame("note", 'a "quote"'),
        frame("list", pack="\n"),
    ]
    ((body, failed),) = run(frames, python)
    entries = [entry.partition(": ") for entry in json.loads(body)["data"]]
    assert [result for *_, result in entries] == ["[1]", "[2]", "[3]", "[4]", "[]"]
    assert entries[-1][0] == "job-\n"
    assert ran == [((), {"a": 1}), (([2],), {}), ((3,), {}), (('a "quote"',), {})]
    assert failed == 0


def test_failures_touch_no_neighbour() -> None:
    def fail(kind: str) -> object:
        raise {"value": ValueError, "stop": KeyboardInterrupt, "exit": SystemExit}[kind]("on purpose")

    python = Watched({"fail": fail, "half": lambda a: a / 2, "object": object})
    frames = [frame("half", 1), *(frame("fail", kind) for kind in ("value", "stop", "exit", "none")), frame("nobody")]
    ((body, failed),) = run([*frames, frame("half"), frame("object"), frame("half", 2)], python)
    data = [entry.removeprefix(f"job-{HASH}: ") for entry in json.loads(body)["data"]]
    assert data[:6] == [
        "0.5",
        "ERROR: ValueError: on purpose",
        "ERROR: KeyboardInterrupt: on purpose",
        "ERROR: SystemExit: on purpose",
        "ERROR: KeyError: 'none'",
        "ERROR: no nobody",
    ]
    assert data[6].startswith("ERROR: half: ")
    assert data[7].startswith("ERROR: a result of type object cannot be sent")
    assert data[8] == "1.0"
    assert failed == 7
    assert json.loads(body)["errors"] == [1, 2, 3, 4, 5, 6, 7]


def test_a_result_that_reads_like_an_error_is_none() -> None:
    texts = ["ERROR: x", 'x, "job-p: ERROR: y', "", ", "]
    (first, last) = run([*(frame("echo", text) for text in texts), frame("nobody")], Watched({"echo": str}), 3)
    assert [json.loads(body)["errors"] for body, _ in (first, last)] == [[], [1]]
    # a worker that dies leaves the entries of its chunk behind
    package = legacy_json.read_package((), b"{}", *join_frames([PLAIN[0]] * 3), {}, 1, NOWHERE)
    for (body, _), errors in ((first, []), (last, [1])):
        entries = body.partition(b"[")[2].partition(b'],"pack"')[0]
        assert json.loads(package.mend(3, entries))["errors"] == errors


def test_arguments_that_do_not_fit_are_told_by_the_traceback() -> None:
    def inner(a: int) -> object:
        raise TypeError("from the inside")

    python = Watched({"inner": inner, "abs": abs})
    run([frame("inner"), frame("inner", 1), frame("inner", b=2), frame("inner", a=3), frame("abs", "x")], python)
    places = [error.__traceback__ for error in python.errors if error is not None]
    assert [place is not None and place.tb_next is None for place in places] == [True, False, True, False, True]


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_any_number_of_arguments(count: int) -> None:
    seen: list[object] = []
    run([frame("note", *range(count))] * 2, Watched({"note": lambda *args: seen.append(args)}))
    assert seen == [tuple(range(count))] * 2


def test_an_answer_has_a_limit() -> None:
    half = "x" * (limits.MAX_BODY // 2)
    python = Watched({"half": lambda: half, "quoted": lambda: '"' + half, "short": lambda **_: "short"})
    frames = [frame("half"), frame("short"), frame("half"), frame("quoted"), frame("short"), frame("short", k=1)]
    ((body, failed),) = run(frames, python)
    told = json.loads(body)["data"]
    error = f"job-{HASH}: ERROR: the results of this answer take more than {limits.MAX_BODY} bytes"
    assert [entry if len(entry) < 200 else len(entry) for entry in told] == [
        len(half) + len(HASH) + 6,
        f"job-{HASH}: short",
        error,
        error,
        f"job-{HASH}: short",
        f"job-{HASH}: short",
    ]
    assert failed == 2


def test_what_python_raises_passes_through() -> None:
    def broken(*_: object) -> Any:
        raise LookupError("the worker's own")

    for python in (
        TaskFrames(broken, broken),
        TaskFrames(lambda name: None, broken),
        TaskFrames(lambda name: len, broken),
    ):
        with pytest.raises(LookupError, match="own"):
            run([frame("x", 1)], python)


class Thing:
    """Something whose life can be watched."""


def test_no_reference_is_kept_or_lost() -> None:
    text = "a word of its own"
    gone: list[weakref.ref[Thing]] = []

    def keep(*args: object) -> object:
        made = Thing()
        gone.append(weakref.ref(made))
        if args:
            raise ValueError(args)
        return text if len(gone) % 2 else made

    frames = [frame("keep"), frame("keep", "x" * 50, 2.5, 2**50), frame("keep", "x", []), frame("keep"), frame("none")]
    python = Watched({"keep": keep})
    before = sys.getrefcount(text), sys.getrefcount(keep), sys.getrefcount(python)
    gc.disable()  # nor is anything left for the collector
    try:
        for _ in range(100):
            run(frames, python)
            python.errors.clear()
    finally:
        gc.enable()
    assert (sys.getrefcount(text), sys.getrefcount(keep), sys.getrefcount(python)) == before
    assert [reference() for reference in gone] == [None] * 400


def test_a_result_is_gone_before_the_next_task_runs() -> None:
    seen: list[object] = []
    last: list[weakref.ref[Thing]] = []

    def make() -> Thing:
        seen.extend(reference() for reference in last)
        made = Thing()
        last[:] = [weakref.ref(made)]
        return made

    run([frame("make")] * 3, Watched({"make": make}))
    assert seen == [None, None]


def test_a_task_may_run_a_batch() -> None:
    inner = Watched({"half": lambda a: a / 2})

    def again(value: float) -> object:
        return run([frame("half", value)] * 60, inner)[0][1]

    python = Watched({"again": again})
    ((body, failed),) = run([frame("again", 1, pack=k) for k in range(3)], python)
    assert json.loads(body)["data"] == ["job-0: 0", "job-1: 0", "job-2: 0"]
    assert failed == 0
