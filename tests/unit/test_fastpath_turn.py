"""The worker's turn, where the model cannot tell: tracebacks, limits, references, what a failure leaves behind."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

import pytest

from taskengine import _fastpath
from taskengine.errors import BadArguments, ProtocolError, TaskFailed, TaskTimeout
from taskengine.protocol import layouts, limits
from taskengine.protocol.messages import ReplyMode
from taskengine.runtime.memory import new_page
from tests.batches import Failures, Functions, batch_of, entry, join_frames, no_error, no_foreign, run, section_of, task


def test_failures_touch_no_neighbour() -> None:
    def fail(kind: type[BaseException]) -> object:
        raise kind("on purpose")

    functions: Functions = [
        lambda a: a + 1,
        None,
        lambda: fail(KeyError),
        lambda: fail(KeyboardInterrupt),
        lambda: fail(SystemExit),
        lambda: ["half of it is written " * 999, object()],
    ]
    tasks = [task(0, 1), task(1), task(2), task(3), task(4), task(5), task(6), b"\xc1", b"\x92\x00\x91", task(0, 2)]
    failures = Failures()
    body = run(tasks, functions, failures, size=3)
    assert _fastpath.unpack(body, len(tasks), lambda data: "failed") == [2, *["failed"] * 8, 3]
    kinds = [None, KeyError, KeyboardInterrupt, SystemExit, TaskFailed, ProtocolError, ProtocolError, ProtocolError]
    assert [(i, position) for i, position, _ in failures] == [*((k, k) for k in range(1, 7)), (-1, 7), (0, 8)]
    assert [error and type(error) for *_, error in failures] == kinds


def test_a_failure_leaves_no_argument_to_the_next_task() -> None:
    def show(*args: object, **kwargs: object) -> list[object]:
        if args[:1] == ("fail",):
            raise ValueError("on purpose")
        return [args, kwargs]

    cut_short = task(0, "lost", b=["lost"])[:-1]
    tasks = [task(0, 1, a=2), task(0, "fail", 3, b=4), task(0, 5), cut_short, task(0), task(0, 6) + b"\x07", task(0, 8)]
    results = _fastpath.unpack(run(tasks, [show]), len(tasks), lambda data: "failed")
    assert results == [[[1], {"a": 2}], "failed", [[5], {}], "failed", [[], {}], "failed", [[8], {}]]


def test_reply_modes() -> None:
    tasks = [task(0, 1), task(1), task(0, 2), task(2)]
    functions: Functions = [lambda a: a, None, object]
    assert run(tasks, functions, reply=ReplyMode.ERRORS) == b"\x01" + entry(b"")
    failures = Failures()
    assert run(tasks, functions, failures, reply=ReplyMode.NONE) == b""
    assert not failures
    answer = _fastpath.run_batch(batch_of(tasks, reply=2), lambda head: functions, failures, no_foreign)
    assert _fastpath.read_answer(answer)[0][3] == 1


def test_arguments_that_do_not_fit_are_told_by_the_traceback() -> None:
    def inner(a: int) -> object:
        raise TypeError("from the inside")

    failures = Failures()
    run([task(0), task(0, 1), task(0, b=2)], [inner], failures)
    outer = [error.__traceback__ for *_, error in failures if error is not None]
    assert [place is not None and place.tb_next is None for place in outer] == [True, False, True]


def test_keywords() -> None:
    def show(*args: object, **kwargs: object) -> list[object]:
        return [args, kwargs]

    sent: list[dict[str, Any]] = [{"a": 1}, {"a": 2}, {"a": 1, "b": 2}, {"b": 1, "a": 2}, {}, {"b": 3}, {"é" * 300: 4}]
    results = run([task(0, 9, **kwargs) for kwargs in sent], [show])
    assert _fastpath.unpack(results, len(sent), no_error) == [[[9], kwargs] for kwargs in sent]
    twice = b"\x93\x00\x90\x82\xa1a\x01\xa1a\x02"
    failures = Failures()
    run([task(0, a=1), twice, b"\x93\x00\x90\x81\x01\x02"], [show], failures)
    assert [(position, type(error)) for _, position, error in failures] == [(1, ProtocolError), (2, ProtocolError)]


@pytest.mark.parametrize("count", [0, 1, 6, 300, 70_000])
def test_any_number_of_arguments(count: int) -> None:
    args = list(range(count))
    kwargs = {f"k{k}": k for k in args}
    assert _fastpath.unpack(run([task(0, *args, **kwargs)], [lambda *a, **k: (a, k)]), 1, no_error) == [[args, kwargs]]


def test_tasks_of_any_kind_of_callable() -> None:
    class Robot:
        def wave(self, times: int) -> int:
            return times

        def __call__(self, times: int) -> int:
            return -times

    functions: Functions = [Robot().wave, Robot(), int, len, Robot.wave.__get__(Robot())]
    tasks = [task(0, 3), task(0, times=4), task(1, 5), task(2, "6"), task(3, "four"), task(4, 7)]
    assert _fastpath.unpack(run(tasks, functions), 6, no_error) == [3, 4, -5, 6, 4, 7]


def test_nothing_runs_of_a_batch_that_is_none() -> None:
    ran: list[int] = []
    batch = batch_of([task(0, 1), task(0, 2)], size=1)
    for damaged in (batch[:-1], batch + b"\0", batch[:4] + batch[5:], b""):
        with pytest.raises(ProtocolError):
            _fastpath.run_batch(damaged, lambda head: [ran.append], Failures(), no_foreign)
    assert not ran


def test_a_task_may_run_a_batch_and_change_its_own() -> None:
    batch = bytearray(batch_of([task(0, "again"), task(0, 5)]))

    def again(value: object) -> object:
        batch[:] = bytes(len(batch))
        return value if value == 5 else run([task(0, 7)], [lambda a: a])

    answer = _fastpath.run_batch(batch, lambda head: [again], Failures(), no_foreign)
    assert _fastpath.unpack(_fastpath.read_answer(answer)[0][5], 2, no_error) == [b"\x07", 5]


def test_an_answer_has_a_limit_that_costs_only_what_passes_it() -> None:
    third = limits.MAX_BODY // 3
    failures = Failures()
    body = run([task(0, third), task(0, third), task(0, third), task(0, 1)], [bytes], failures)
    assert [(position, type(error)) for _, position, error in failures] == [(2, TaskFailed)]
    assert len(body) > 2 * third

    def verbose(head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
        return entry(b"short" if isinstance(error, BadArguments) else b"x" * third)

    answer = _fastpath.run_batch(batch_of([task(0)] * 5), lambda head: [None], verbose, no_foreign)
    seen = _fastpath.unpack(_fastpath.read_answer(answer)[0][5], 5, len)
    assert seen == [third, third, 5, 5, 5]


def test_foreign_chunks() -> None:
    package = join_frames([b"one", b"three", b"five", b"seven"])
    section = section_of(package, 1, 4, sizes=(1, 0, 2), job=5, format=layouts.Format.LEGACY_JSON, head=b"head")
    seen: list[tuple[Any, ...]] = []

    def foreign(*args: object) -> tuple[bytes, int]:
        seen.append(args)
        return b"answer", 2

    answer = _fastpath.run_batch(_fastpath.pack_batch(1, 0, [section]), lambda head: [], Failures(), foreign)
    assert [args[:5] for args in seen] == [(1, b"head", 1, [5], b"three"), (1, b"head", 2, [4, 9], b"fiveseven")]
    assert limits.MAX_BODY > seen[0][5] > seen[1][5] > limits.MAX_BODY - 200
    assert [entry[:4] + entry[5:] for entry in _fastpath.read_answer(answer)] == [
        (5, 1, 2, 2, b"answer"),
        (5, 2, 4, 2, b"answer"),
    ]


def test_slices_are_timed() -> None:
    answer = _fastpath.run_batch(
        batch_of([task(0, 300_000)] * 2, size=1), lambda head: [lambda n: sum(range(n))], Failures(), no_foreign
    )
    ((_, first, stop, _, elapsed_ns, _),) = _fastpath.read_answer(answer)
    assert (first, stop) == (0, 2)
    assert elapsed_ns > 0


def test_a_worker_that_has_been_at_a_batch_too_long_hands_the_rest_back() -> None:
    ran: list[int] = []
    package = join_frames([task(0, k) for k in range(10)])
    sections = [section_of(package, 0, 4, sizes=(1, 0, 2)), section_of(package, 4, 10, job=2)]
    batch = _fastpath.pack_batch(1, 1, sections)
    answer = _fastpath.run_batch(batch, lambda head: [ran.append], Failures(), no_foreign)
    assert [entry[:3] for entry in _fastpath.read_answer(answer)] == [(1, 0, 1)]
    assert ran == [0]
    with_time = _fastpath.pack_batch(1, 10**18, sections)
    answer = _fastpath.run_batch(with_time, lambda head: [ran.append], Failures(), no_foreign)
    assert [entry[:3] for entry in _fastpath.read_answer(answer)] == [(1, 0, 4), (2, 4, 10)]
    foreign = _fastpath.pack_batch(
        1, 1, [section_of(package, 0, 9, sizes=(2, 1, 3), format=layouts.Format.LEGACY_JSON)]
    )
    answer = _fastpath.run_batch(foreign, lambda head: [], Failures(), lambda *_: (b"", 0))
    assert [entry[:3] for entry in _fastpath.read_answer(answer)] == [(1, 0, 2)]


def test_a_task_that_comes_too_late_never_starts() -> None:
    ran: list[int] = []
    failures = Failures()
    run([task(0, 1), task(0, 2)], [ran.append], failures, deadline=1)
    assert [(i, position, type(error)) for i, position, error in failures] == [
        (-1, 0, TaskTimeout),
        (-1, 1, TaskTimeout),
    ]
    run([task(0, 3)], [ran.append], failures, deadline=2**63)
    assert ran == [3]


def test_what_a_callback_raises_passes_through() -> None:
    def broken(*_: object) -> Any:
        raise LookupError("the worker's own")

    batch = batch_of([task(0)])
    foreign = batch_of([b"x"], format=layouts.Format.DATA)
    for damaged, resolve in ((batch, broken), (batch, lambda head: [None]), (foreign, broken)):
        with pytest.raises(LookupError, match="own"):
            _fastpath.run_batch(damaged, resolve, broken, broken)


# ---- references and threads


class Thing:
    """Something whose life can be watched."""


def test_no_reference_is_kept_or_lost() -> None:
    text, thing = "a word of its own", Thing()
    gone: list[weakref.ref[Thing]] = []

    def keep(*args: object, **kwargs: object) -> object:
        made = Thing()
        gone.append(weakref.ref(made))
        if kwargs:
            raise ValueError("with arguments")
        return made if args else text

    before = sys.getrefcount(text), sys.getrefcount(thing), sys.getrefcount(keep)
    for _ in range(100):
        _fastpath.encode([text, {text: (text,)}])
        with pytest.raises(BadArguments):
            _fastpath.pack_calls([(text, (text,), {text: text}), (text, [text, thing], {})], {})
        run([task(0), task(0, "x" * 50), task(0, k={"y": ["z"]}), b"\x92\x00\x92\xa1x"], [keep])
    gc.collect()
    assert (sys.getrefcount(text), sys.getrefcount(thing), sys.getrefcount(keep)) == before
    assert [reference() for reference in gone] == [None] * 300


def test_a_result_is_gone_before_the_next_task_runs() -> None:
    seen: list[object] = []
    last: list[weakref.ref[Thing]] = []

    def make() -> Thing:
        seen.extend(reference() for reference in last)
        made = Thing()
        last[:] = [weakref.ref(made)]
        return made

    run([task(0)] * 3, [make], reply=ReplyMode.NONE)
    assert seen == [None, None]


def test_threads() -> None:
    results: list[bool] = []

    def work(k: int) -> None:
        value = {"k": [k, str(k), k / 2]}
        results.append(
            all(
                _fastpath.unpack(run([task(0, value)] * 20, [lambda a: a]), 20, no_error) == [value] * 20
                for _ in range(50)
            )
        )

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_a_task_has_begun_when_its_arguments_are_read() -> None:
    """A worker that dies of them has died of the task, and no other is given it."""
    page = new_page()
    seen: list[tuple[bool, int]] = []

    def failed(head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
        seen.append((page.running, page.position))
        return b"\xc0"

    batch = batch_of([task(0), b"\x92\x00\x91\xc1", task(0)])
    _fastpath.run_batch(batch, lambda head: [lambda: None], failed, no_foreign, None, page)
    assert seen == [(True, 1)]


def flaky(*values: object) -> list[object]:
    """Raise OSError for "again", KeyError for "fail"; give the arguments back otherwise."""
    if values == ("again",):
        raise OSError("on purpose")
    if values == ("fail",):
        raise KeyError("on purpose")
    return list(values)


def may_retry(head: bytes, i: int, error: BaseException) -> bool:
    return i == 0 and isinstance(error, OSError)


def retried(tasks: list[bytes], **section: Any) -> list[tuple[int, int, int, bytes]]:
    """The entries of an answer: first, stop, failed, body."""
    page = new_page()
    functions: Functions = [flaky, flaky]
    answer = _fastpath.run_batch(
        batch_of(tasks, **section), lambda head: functions, Failures(), no_foreign, None, page, None, may_retry
    )
    entries = _fastpath.read_answer(answer)
    account = page.read(1)
    assert account is not None
    assert (account[0], account[1], account[2]) == (entries, None, None)
    return [(first, stop, failed, body) for _, first, stop, failed, _, body in entries]


AGAIN, FAIL = task(0, "again"), task(0, "fail")
RETRY = layouts.MAY_RETRY | 1


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_a_task_that_may_run_again_is_alone_in_its_entry(size: int) -> None:
    tasks = [task(0, 1), AGAIN, task(0, 2), FAIL, AGAIN, AGAIN, task(0, 3), task(1, "again"), AGAIN]
    entries = retried(tasks, size=size)
    assert [(first, stop, failed) for first, stop, failed, _ in entries] == [
        *[(0, 1, 0), (1, 2, RETRY), (2, 4, 1), (4, 5, RETRY), (5, 6, RETRY), (6, 8, 1), (8, 9, RETRY)]
    ]
    values = [_fastpath.unpack(body, stop - first, lambda data: "failed") for first, stop, _, body in entries]
    assert values == [[[1]], ["failed"], [[2], "failed"], ["failed"], ["failed"], [[3], "failed"], ["failed"]]


def test_a_task_that_may_run_again_is_told_in_the_reply_mode() -> None:
    tasks = [task(0, 1), AGAIN, task(0, 2)]
    found = [(first, failed, body[:1]) for first, _, failed, body in retried(tasks, reply=ReplyMode.ERRORS)]
    assert found == [(0, 0, b""), (1, RETRY, b"\x01"), (2, 0, b"")]
    assert retried(tasks, reply=ReplyMode.NONE) == [(0, 1, 0, b""), (1, 2, RETRY, b""), (2, 3, 0, b"")]


def test_a_result_that_cannot_be_sent_and_a_task_that_came_too_late_do_not_run_again() -> None:
    asked: list[BaseException] = []

    def ask(head: bytes, i: int, error: BaseException) -> bool:
        asked.append(error)
        return True

    functions: Functions = [lambda: object(), flaky]
    for tasks, deadline in (([task(0)], 0), ([task(1, 1)], 1)):
        batch = batch_of(tasks, deadline=deadline)
        answer = _fastpath.run_batch(batch, lambda head: functions, Failures(), no_foreign, may_retry=ask)
        assert [entry[3] for entry in _fastpath.read_answer(answer)] == [1]
    assert asked == []


def test_a_recalled_batch_ends_behind_a_task_that_may_run_again() -> None:
    page = new_page()

    def recall() -> None:
        page.recall(1)
        raise OSError("on purpose")

    batch = batch_of([task(0), task(0), task(0)])
    answer = _fastpath.run_batch(
        batch, lambda head: [recall], Failures(), no_foreign, None, page, None, lambda head, i, error: True
    )
    assert [entry[1:4] for entry in _fastpath.read_answer(answer)] == [(0, 1, RETRY)]
