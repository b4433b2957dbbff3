"""The progress page that a worker leaves behind, each case tried on a process that dies."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskengine import _fastpath
from taskengine._fastpath import FIRST_LOOK, ProgressPage
from taskengine.broker import legacy_json
from taskengine.broker.legacy_json import TaskFrames
from taskengine.broker.package import encode_head
from taskengine.errors import ProtocolError
from taskengine.protocol import layouts
from taskengine.protocol.messages import NOWHERE, ReplyMode
from tests.batches import Failures, Functions, join_frames, no_error, no_foreign, section_of, task
from tests.emulation import EMULATED

DIED = 7
Account = tuple[list[Any], Any, Any] | None


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, layouts.PROGRESS_BYTES) as shared:
        yield shared


def batch_of(number: int, tasks: list[bytes], chunk: int = 3, **how: Any) -> bytes:
    """A batch of one slice, from the second task of the package on."""
    sizes = (1, 0, chunk)
    return _fastpath.pack_batch(number, 0, [section_of(join_frames(tasks), 1, len(tasks), sizes=sizes, **how)])


def die() -> None:
    os._exit(DIED)


FUNCTIONS: Functions = [lambda a: a, die, None]


def in_a_worker(work: Callable[[], object]) -> int:
    """The exit code of a process that did the work."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(memory: mmap.mmap, *batches: bytes) -> int:
    def work() -> None:
        page = ProgressPage(memory)
        for batch in batches:
            _fastpath.run_batch(batch, lambda head: FUNCTIONS, Failures(), no_foreign, None, page)

    return in_a_worker(work)


def values(entry: Any) -> list[Any]:
    return _fastpath.unpack(entry[5], entry[2] - entry[1], lambda data: "failed")


def test_what_was_done_in_a_chunk_is_kept_and_what_ran_is_known(memory: mmap.mmap) -> None:
    tasks = [task(0, "before"), task(0, 1), task(2), task(0, 3), task(1), task(0, 5), task(0, 6)]
    assert run(memory, batch_of(4, tasks)) == DIED
    account = ProgressPage(memory).read(4)
    assert account is not None
    entries, part, running = account
    assert (entries, running) == ([], (1, 4))
    assert part is not None
    assert (part[:4], values(part)) == ((1, 1, 4, 1), [1, "failed", 3])


def test_nothing_is_kept_of_a_task_that_died_at_once_and_no_batch_is_taken_for_another(memory: mmap.mmap) -> None:
    assert run(memory, batch_of(4, [task(0, 0), task(1)])) == DIED
    page = ProgressPage(memory)
    assert page.read(4) == ([], None, (1, 1))
    assert page.running
    for other in (0, 2, 3, 5, 6):
        assert page.read(other) is None


def test_the_batch_before_is_still_there(memory: mmap.mmap) -> None:
    assert run(memory, batch_of(5, [task(0, 0), task(0, 1), task(0, 2)]), batch_of(6, [task(1)] * 2)) == DIED
    page = ProgressPage(memory)
    account = page.read(5)
    assert account is not None
    (entry,), part, running = account
    assert (values(entry), part, running) == ([1, 2], None, None)
    assert page.read(6) == ([], None, (1, 1))


def test_slices_that_ended_before_are_entries(memory: mmap.mmap) -> None:
    package = join_frames([task(0, n) for n in range(4)] + [task(1)])
    sections = [section_of(package, 0, 2, job=1), section_of(package, 2, 5, job=2)]
    assert run(memory, _fastpath.pack_batch(9, 0, sections)) == DIED
    account = ProgressPage(memory).read(9)
    assert account is not None
    (entry,), part, running = account
    assert (entry[:3], values(entry)) == ((1, 0, 2), [0, 1])
    assert part is not None
    assert (part[:3], values(part), running) == ((2, 2, 4), [2, 3], (2, 4))


@pytest.mark.parametrize("mode", [ReplyMode.ERRORS, ReplyMode.NONE])
def test_reply_modes(memory: mmap.mmap, mode: ReplyMode) -> None:
    assert run(memory, batch_of(4, [task(0, 0), task(0, 1), task(2), task(0, 3), task(1)], reply=mode)) == DIED
    account = ProgressPage(memory).read(4)
    assert account is not None
    assert account[1] is not None
    assert account[1][1:4] == (1, 4, 1)
    assert bool(account[1][5]) == (mode == ReplyMode.ERRORS)


def test_task_frames(memory: mmap.mmap) -> None:
    """Their strings are kept, so that a DATA frame can be made of them; a task that Python runs is watched too."""
    frames = [b'{"task":"%b","args":[%d],"pack":"p"}' % (name, n) for n, name in enumerate([b"f"] * 5 + [b"die"])]
    frames[3] = b'{"task":"f","kwargs":{"a":3},"pack":"p"}'
    frames[2] = b'{"task":"f","args":[2, "too many"],"pack":"p"}'
    functions: dict[str, Callable[..., Any]] = {"f": lambda a: a, "die": lambda a: die()}

    def work() -> None:
        page = ProgressPage(memory)
        python = TaskFrames(functions.__getitem__, lambda name, error: ProtocolError(str(error)), lambda name: 10**12)
        batch = batch_of(4, frames, chunk=5, format=layouts.Format.LEGACY_JSON, head=encode_head("s", b"1"))
        _fastpath.run_batch(batch, lambda head: [], Failures(), no_foreign, python, page)

    assert in_a_worker(work) == DIED
    page = ProgressPage(memory)
    account = page.read(4)
    assert account is not None
    (first,), part, running = account
    assert first[:3] == (1, 1, 2)
    assert part is not None
    assert (part[1:4], running) == ((2, 5, 1), (1, 5))
    package = legacy_json.read_package((), b"{}", *join_frames(frames), {}, 1, NOWHERE)
    data = msgspec.json.decode(package.mend(3, part[5]))
    assert (data["size"], data["data"][1:], data["errors"]) == (3, ["job-p: 3", "job-p: 4"], [0])
    assert data["data"][0].startswith("job-p: ERROR: ")


def test_columns(memory: mmap.mmap) -> None:
    def third(a: int) -> int:
        if a == 12:
            die()
        return a

    body = b"".join(n.to_bytes(8, "little") for n in range(10, 15))
    batch = _fastpath.pack_batch(4, 0, [(1, layouts.Format.COLUMNS, 0, 0, b"", b"i", body, 1, 0, 5, 5, 0, 0)])
    work = _fastpath.run_batch, (batch, lambda head: [third], Failures(), no_foreign, None, ProgressPage(memory))
    assert in_a_worker(lambda: work[0](*work[1])) == DIED
    account = ProgressPage(memory).read(4)
    assert account is not None
    assert account[1] is not None
    assert (values(account[1]), account[2]) == ([10, 11], (1, 2))


def test_the_answer_is_the_same_with_and_without_a_slate(memory: mmap.mmap) -> None:
    batch = batch_of(3, [task(0, n) for n in range(20)])
    page = ProgressPage(memory)
    answers = [
        _fastpath.run_batch(batch, lambda head: FUNCTIONS, Failures(), no_foreign, None, which)
        for which in (None, page)
    ]
    (left,), (right,) = map(_fastpath.read_answer, answers)
    assert left[:4] + left[5:] == right[:4] + right[5:]
    account = page.read(3)
    assert account is not None
    assert account[0] == [right]
    assert not page.running


def test_a_recall_ends_the_batch_behind_the_running_task(memory: mmap.mmap) -> None:
    page = ProgressPage(memory)
    ran: list[int] = []

    def step(n: int) -> int:
        ran.append(n)
        if n == 4:
            page.recall(8)
        return n

    def answer(number: int, count: int = 9) -> list[Any]:
        batch = batch_of(number, [task(0, n) for n in range(count)])
        done = _fastpath.run_batch(batch, lambda head: [step], Failures(), no_foreign, None, page)
        return [entry[:3] for entry in _fastpath.read_answer(done)]

    assert answer(7) == [(1, 1, 5)]
    assert ran == [1, 2, 3, 4]
    assert answer(8) == []
    assert answer(9, 4) == [(1, 1, 4)]


def test_a_recalled_data_frame_tells_its_size(memory: mmap.mmap) -> None:
    page = ProgressPage(memory)
    frames = [b'{"task":"f","args":[%d]}' % n for n in range(12)]

    def step(n: int) -> int:
        if n == 3:
            page.recall(1)
        return n

    python = TaskFrames(lambda name: step, lambda name, error: ProtocolError(str(error)))
    batch = batch_of(1, frames, chunk=11, format=layouts.Format.LEGACY_JSON, head=encode_head("s", b"1"))
    answer = _fastpath.run_batch(batch, lambda head: [], Failures(), no_foreign, python, page)
    assert [(entry[1:3], entry[5]) for entry in _fastpath.read_answer(answer)] == [
        ((1, 2), b'{"size":1,"data":["job-: 1"],"pack":1,"errors":[]}'),
        ((2, 4), b'{"size":2 ,"data":["job-: 2","job-: 3"],"pack":1,"errors":[]}'),
    ]


def test_a_timeout_is_seen_while_its_task_runs(memory: mmap.mmap) -> None:
    page = ProgressPage(memory)
    seen: list[int] = []
    functions: Functions = [lambda: seen.append(page.until_ns), lambda: seen.append(page.until_ns)]
    batch = batch_of(1, [task(0), task(0), task(1)])
    _fastpath.run_batch(batch, lambda head: functions, Failures(), no_foreign, None, page, lambda head: [10**9, 0])
    assert seen[0] > 0
    assert (seen[1], page.until_ns) == (0, 0)


def test_a_new_worker_has_no_past(memory: mmap.mmap) -> None:
    assert run(memory, batch_of(4, [task(0, 0), task(1)])) == DIED
    page = ProgressPage(memory)
    page.clear()
    assert (page.running, page.until_ns, page.read(4)) == (False, 0, None)


# not run: what would fail holds the memory, which then cannot be closed
@pytest.mark.xfail(EMULATED, reason="QEMU does not show what a guest's memory takes", run=False)
def test_the_memory_of_a_large_answer_is_given_back(memory: mmap.mmap) -> None:
    page = ProgressPage(memory)
    functions: Functions = [lambda size: bytes(size)]

    def pages() -> int:
        """KiB of shared memory that this process has."""
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssShmem"))
        return int(line.split()[1])

    before = pages()
    batch = batch_of(2, [task(0, 1), task(0, 2**24)])
    _fastpath.run_batch(batch, lambda head: functions, Failures(), no_foreign, None, page)
    assert pages() - before > 2**13
    page.release(2)
    assert pages() - before < 2**10


def test_senseless_memory_is_told(memory: mmap.mmap) -> None:
    assert run(memory, batch_of(4, [task(0, 0), task(0, 1), task(1)])) == DIED
    junk = ProgressPage(memory)
    for place in range(0, 200, 8):
        kept = memory[place : place + 8]
        memory[place : place + 8] = b"\xff" * 8
        try:
            junk.read(4)
        except ProtocolError:
            continue
        finally:
            memory[place : place + 8] = kept
    account = junk.read(4)
    assert account is not None
    assert account[1] is not None
    assert _fastpath.unpack(account[1][5], 1, no_error) == [1]
    with pytest.raises(ProtocolError, match="a progress page has"):
        ProgressPage(bytearray(4096))


def looks(page: ProgressPage, number: int, jobs: Container[int] = range(100)) -> Callable[[], list[Any] | None]:
    """What is new of a batch, whenever the router looks."""
    cursor = FIRST_LOOK

    def look() -> list[Any] | None:
        nonlocal cursor
        found = page.peek(number, cursor, jobs)
        if found is None:
            return None
        pieces, cursor = found
        return [(*piece[:4], piece[4] and values((0, *piece[1:4], 0, piece[4]))) for piece in pieces]

    return look


def run_looking(memory: mmap.mmap, batch: bytes, look: Callable[[], object]) -> list[Any]:
    """What a look gives before each task and after the last."""
    found: list[Any] = []

    def tell(value: object) -> object:
        found.append(look())
        return value

    functions: Functions = [tell, None]
    _fastpath.run_batch(batch, lambda head: functions, Failures(), no_foreign, None, ProgressPage(memory))
    return [*found, look()]


def test_the_router_sees_what_is_finished_of_a_living_worker(memory: mmap.mmap) -> None:
    tasks = [task(0, "before"), task(0, "one"), task(0, "two"), task(1), task(0, "four"), task(0, "five")]
    found = run_looking(memory, batch_of(4, tasks, chunk=2), looks(ProgressPage(memory), 4))
    assert found == [
        None,
        [(1, 1, 2, 0, ["one"])],
        [(1, 2, 4, 1, ["two", "failed"])],
        [(1, 4, 5, 0, ["four"])],
        [(1, 5, 6, 0, ["five"])],
    ]


def test_a_look_may_come_at_any_time(memory: mmap.mmap) -> None:
    package = join_frames([task(0, n) for n in range(9)])
    sections = [section_of(package, first, first + 3, job=1 + first) for first in (0, 3, 6)]
    batch = _fastpath.pack_batch(9, 0, sections)
    for wanted in range(1, 2**10):
        look, place = looks(ProgressPage(memory), 9), iter(range(10))

        def now_and_then(look: Any = look, place: Any = place, wanted: int = wanted) -> list[Any]:
            return (look() or []) if wanted >> next(place) & 1 else []

        seen = [piece for pieces in run_looking(memory, batch, now_and_then) for piece in pieces]
        seen += look() or []
        told = [(job, position, value) for job, first, _, _, body in seen for position, value in enumerate(body, first)]
        assert told == [(1 + n // 3 * 3, n, n) for n in range(9)]
        ProgressPage(memory).clear()


def test_only_the_wanted_results_are_copied(memory: mmap.mmap) -> None:
    package = join_frames([task(0, n) for n in range(4)])
    sections = [section_of(package, 0, 2, job=1), section_of(package, 2, 4, job=2)]
    look = looks(ProgressPage(memory), 9, {2})
    found = run_looking(memory, _fastpath.pack_batch(9, 0, sections), look)
    assert found == [None, [(1, 0, 1, 0, None)], [(1, 1, 2, 0, None)], [(2, 2, 3, 0, [2])], [(2, 3, 4, 0, [3])]]


def test_no_other_batch_is_looked_at(memory: mmap.mmap) -> None:
    run_looking(memory, batch_of(4, [task(0, 0), task(0, 1)]), lambda: None)
    for other in (0, 2, 3, 5, 6):
        assert ProgressPage(memory).peek(other, FIRST_LOOK, {1}) is None


def test_a_page_that_a_task_has_overwritten_is_malformed_or_says_something(memory: mmap.mmap) -> None:
    page = ProgressPage(memory)
    run_looking(memory, batch_of(4, [task(0, n) for n in range(6)], chunk=2), lambda: None)
    found = page.peek(4, FIRST_LOOK, {1})
    assert found is not None
    numbers = random.Random(7)
    honest = memory[: 2**12], memory[layouts.PROGRESS_HEAD :][: 2**12]
    errors = 0
    for _ in range(3000):
        start = numbers.choice([0, layouts.PROGRESS_HEAD])
        at = start + numbers.randrange(24, 200)
        memory[at] = numbers.choice([0, 1, 0x7F, 0x80, 0xFF])
        cursor = numbers.choice([FIRST_LOOK, found[1]])
        try:
            page.peek(4, cursor, {1})
        except ProtocolError:
            errors += 1
        if numbers.random() < 0.2:
            memory[: 2**12], memory[layouts.PROGRESS_HEAD : layouts.PROGRESS_HEAD + 2**12] = honest
    assert errors


def test_a_router_that_looks_all_the_time_sees_each_result_once(memory: mmap.mmap) -> None:
    batches, tasks = 150, 48
    package = join_frames([task(0, "x" * (n % 7) + str(n)) for n in range(tasks)])
    parts = [section_of(package, first, first + 6, job=1 + first) for first in range(0, tasks, 6)]
    (begin, may_begin), (end, has_ended) = os.pipe(), os.pipe()

    def work() -> None:
        os.close(may_begin)  # a test that failed is not waited for
        page = ProgressPage(memory)
        number = 0
        while os.read(begin, 1):
            number += 1
            batch = _fastpath.pack_batch(number, 0, parts)
            _fastpath.run_batch(batch, lambda head: FUNCTIONS, Failures(), no_foreign, None, page)
            os.write(has_ended, b".")
        os._exit(0)

    pid = os.fork()
    if not pid:
        work()
    page, early, number = ProgressPage(memory), 0, 0
    os.set_blocking(end, False)
    # a machine with other work may let it look too late each time for a while
    while number < batches or (not early and number < 50 * batches):
        number += 1
        look, seen = looks(page, number), dict[int, Any]()
        os.write(may_begin, b".")
        is_over = False
        while not is_over:
            is_over = has_byte(end)
            early += len(seen) if is_over else 0
            for job, first, stop, failed, results in look() or []:
                assert (job, failed) == (1 + first // 6 * 6, 0)
                assert seen.keys().isdisjoint(range(first, stop))
                seen |= dict(zip(range(first, stop), results, strict=True))
        assert seen == {n: "x" * (n % 7) + str(n) for n in range(tasks)}
    os.close(may_begin)
    assert os.waitpid(pid, 0)[1] == 0
    for descriptor in (begin, end, has_ended):
        os.close(descriptor)
    assert early, "it always looked too late"


def has_byte(descriptor: int) -> bool:
    try:
        return bool(os.read(descriptor, 1))
    except BlockingIOError:
        return False


def test_a_task_that_may_run_again_is_marked_for_who_looks(memory: mmap.mmap) -> None:
    """Its error is no result yet."""
    page = ProgressPage(memory)

    def fails(n: int) -> int:
        raise ValueError(n)

    _fastpath.run_batch(
        batch_of(4, [task(0, n) for n in range(2)]),
        lambda head: [fails],
        Failures(),
        no_foreign,
        None,
        page,
        None,
        lambda head, i, error: True,
    )
    found = page.peek(4, FIRST_LOOK, {1})
    assert found is not None
    assert {piece[3] for piece in found[0]} == {layouts.MAY_RETRY | 1}


def test_where_a_batch_begins_nothing_is_left_of_the_one_before_it_in_the_slot(memory: mmap.mmap) -> None:
    """Its `done`, read just before the first entry of this one is opened, was taken for this one's."""
    page, tasks = ProgressPage(memory), 37
    package = join_frames([task(0, n) for n in range(tasks)])
    batch = _fastpath.pack_batch(1, 0, [section_of(package, 0, tasks)])
    _fastpath.run_batch(batch, lambda head: FUNCTIONS, Failures(), no_foreign, None, page)
    before = memoryview(memory[:4096]).cast("Q").tolist()
    [place] = [place for place, word in enumerate(before) if word >> 32 == tasks and word & 0xFFFFFFFF > tasks]
    _fastpath.run_batch(_fastpath.pack_batch(3, 0, []), lambda head: FUNCTIONS, Failures(), no_foreign, None, page)
    assert memoryview(memory[:4096]).cast("Q")[place] == 0
