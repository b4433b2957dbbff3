"""Tasks beside each other in one worker: what each is answered, in whatever order they end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskengine import (
    BadArguments,
    Cancelled,
    Origin,
    TaskFailed,
    TaskTimeout,
    UnknownTask,
    _fastpath,
    caller,
    position,
)
from taskengine.broker.binary import error_of
from taskengine.broker.package import encode_head
from taskengine.protocol import layouts
from taskengine.protocol.layouts import Format
from taskengine.protocol.messages import ReplyMode
from taskengine.registry.registry import Registry, Task
from taskengine.worker.concurrent_calls import Call, ConcurrentCalls
from taskengine.worker.event_loop import EventLoop
from taskengine.worker.tuning import CANCEL_GRACE_S
from taskengine.worker.worker import BatchRunner
from tests.batches import join_frames, section_of, task
from tests.engine import deadline

MOST = 3
EPOCH = 1 << 32
LATE = 10**18
"""A time at which everything is overdue, in ns."""


class Worker:
    """A worker's calls without a worker: its tasks by their names."""

    def __init__(self, *functions: Callable[..., Any], seconds: float | None = None) -> None:
        self.said: list[str] = []
        self.loop = EventLoop(self.said.append)
        self.page = _fastpath.ProgressPage(bytearray(layouts.PROGRESS_BYTES))
        self.table = _fastpath.CallTable(self.page)
        self.calls = ConcurrentCalls(self.loop, self.table, MOST)
        registry = Registry()
        for function in functions:
            name = function.__name__
            registry.tasks[name] = Task(name, function, "", seconds, idempotent=False)
        runner = BatchRunner(registry, callable_of=self.calls.starter)
        self.calls.connect(runner.answer, self._take)
        self.answers: dict[int, bytes] = {}
        self._next = EPOCH

    def start(self, name: str, *args: object, position: int = 0, client: str = "", **how: Any) -> int:
        """Start a task; the number of its batch."""
        number, self._next = self._next, self._next + 1
        head = encode_head("1", [name], Origin(client, b"c"))
        tasks = [task(0)] * position + [task(0, *args)]
        section = section_of(join_frames(tasks), position, position + 1, **{"head": head, **how})
        self.calls.start(_fastpath.pack_batch(number, 0, [section]))
        return number

    def wait(self, *numbers: int) -> None:
        """Run the loop until these batches are answered."""
        for _ in range(10_000):
            if all(number in self.answers for number in numbers):
                return
            self.loop.wait(0.001)
        raise AssertionError(f"no answers to {numbers}, but to {list(self.answers)}")

    def result(self, number: int) -> Any:
        """The result of a batch's task; its error is raised."""
        self.wait(number)
        [(_, first, stop, failed, elapsed, body)] = _fastpath.read_answer(self.answers[number])
        assert stop == first + 1
        assert elapsed > 0
        if failed:
            raise error_of(body)
        return _fastpath.unpack(body, 1, bytes)[0]

    def _take(self, call: Call, answer: bytes) -> None:
        assert call.number not in self.answers
        self.answers[call.number] = answer


@pytest.fixture
def make() -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(*functions: Callable[..., Any], seconds: float | None = None) -> Worker:
        made.append(Worker(*functions, seconds=seconds))
        return made[-1]

    yield make
    for worker in made:
        worker.loop.close()


Make = Callable[..., Worker]


class Gate:
    """Tasks that wait until they are let go."""

    def __init__(self) -> None:
        self.events: dict[int, asyncio.Event] = {}

    async def passes(self, key: int) -> list[object]:
        self.events[key] = asyncio.Event()
        await self.events[key].wait()
        return [key, caller(), position()]


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    async def call(*args: Any) -> Any:
        return await function(*args)

    call.__name__ = name
    return call


def test_tasks_run_beside_each_other_and_are_answered_as_they_end(make: Make) -> None:
    gate = Gate()
    worker = make(named(gate.passes, "t"))
    one, two, three = (worker.start("t", key, position=key, client=f"c{key}", job=7) for key in range(3))
    worker.loop.wait(0.001)
    assert worker.calls.count == 3
    gate.events[1].set()
    assert worker.result(two) == [1, "c1", 1]
    assert list(worker.answers) == [two]
    gate.events[2].set()
    gate.events[0].set()
    assert worker.result(one) == [0, "c0", 0]
    assert worker.result(three) == [2, "c2", 2]
    assert worker.calls.count == 0


def test_what_cannot_start_is_answered_at_once(make: Make) -> None:
    async def t(value: int) -> int:
        return value

    worker = make(t)
    with pytest.raises(UnknownTask):
        worker.result(worker.start("other"))
    with pytest.raises(BadArguments, match="positional"):
        worker.result(worker.start("t"))
    with pytest.raises(TaskTimeout, match="before the task could start"):
        worker.result(worker.start("t", 1, deadline=1))
    assert worker.calls.count == 0


def test_a_deadline_is_for_the_start_alone(make: Make) -> None:
    gate = Gate()
    worker = make(named(gate.passes, "t"))
    over = time.monotonic_ns() + int(deadline(0.25) * 1e9)
    number = worker.start("t", 5, deadline=over)
    while time.monotonic_ns() <= over:
        worker.loop.wait(0.02)
    gate.events[5].set()
    assert worker.result(number)[0] == 5


def test_each_has_its_own_timeout(make: Make) -> None:
    seen: list[str] = []

    async def t(seconds: float) -> float:
        try:
            await asyncio.sleep(seconds)
        finally:
            seen.append(f"{seconds}")
        return seconds

    worker = make(t, seconds=0.5)
    slow, quick = worker.start("t", 60.0), worker.start("t", 0.0)
    assert worker.result(quick) == 0.0
    with pytest.raises(TaskTimeout, match=r"0.5 s, and was cancelled"):
        worker.result(slow)
    assert seen == ["0.0", "60.0"]


def test_one_is_cancelled_and_its_neighbour_is_not(make: Make) -> None:
    gate = Gate()
    worker = make(named(gate.passes, "t"))
    one, two, other = (worker.start("t", n, position=n % 2, job=1 + n // 2) for n in range(3))
    worker.loop.wait(0.001)
    worker.calls.cancel([(1, 1, 2), (5, 0, 9)])
    with pytest.raises(Cancelled, match="while it ran"):
        worker.result(two)
    gate.events[0].set()
    gate.events[2].set()
    assert worker.result(one)[0] == 0
    assert worker.result(other)[0] == 2


def test_what_is_cancelled_before_its_first_step_runs_no_code(make: Make) -> None:
    gate = Gate()
    worker = make(named(gate.passes, "t"))
    number = worker.start("t", 0)
    worker.calls.cancel([(1, 0, 1)])
    with pytest.raises(Cancelled):
        worker.result(number)
    assert gate.events == {}


def test_an_error_and_a_result_that_cannot_be_sent_are_the_tasks_own(make: Make) -> None:
    async def fails() -> None:
        raise ValueError("wrong")

    async def huge() -> object:
        return object()

    async def leaves() -> None:
        raise SystemExit(3)

    worker = make(fails, huge, leaves)
    with pytest.raises(TaskFailed) as caught:
        worker.result(worker.start("fails"))
    assert "in fails" in caught.value.traceback
    assert "taskengine" not in caught.value.traceback
    with pytest.raises(TaskFailed, match="cannot be sent"):
        worker.result(worker.start("huge"))
    with pytest.raises(TaskFailed, match="SystemExit"):
        worker.result(worker.start("leaves"))


def test_a_plain_task_runs_at_once(make: Make) -> None:
    def t(value: int) -> int:
        assert worker.table.overdue(LATE) == [EPOCH]
        return value + position()

    worker = make(t, seconds=2.0)
    assert worker.result(worker.start("t", 5, position=1)) == 6
    assert worker.table.overdue(LATE) == []


@pytest.mark.parametrize("mode", [ReplyMode.ALL, ReplyMode.ERRORS, ReplyMode.NONE])
def test_reply_modes(make: Make, mode: ReplyMode) -> None:
    async def t(value: int) -> int:
        return 1 // value

    worker = make(t)
    good, bad = worker.start("t", 1, reply=mode), worker.start("t", 0, reply=mode)
    worker.wait(good, bad)
    bodies = [_fastpath.read_answer(worker.answers[number])[0] for number in (good, bad)]
    assert [entry[3] for entry in bodies] == [0, 1]
    assert [bool(entry[5]) for entry in bodies] == {
        ReplyMode.ALL: [True, True],
        ReplyMode.ERRORS: [False, True],
        ReplyMode.NONE: [False, False],
    }[mode]


def test_frames_of_wire_01_and_columns(make: Make) -> None:
    async def t(value: float) -> float:
        await asyncio.sleep(0)
        return value / 2

    worker = make(t)
    frame = json.dumps({"task": "t", "args": [3], "pack": "p"}).encode()
    head = encode_head("1", b"5")
    section = section_of(join_frames([frame]), format=Format.LEGACY_JSON, head=head)
    worker.calls.start(_fastpath.pack_batch(1, 0, [section]))
    worker.wait(1)
    assert b'"data":["job-p: 1.5"]' in worker.answers[1]
    columns = (1, Format.COLUMNS, 0, 0, encode_head("1", ["t"]), b"i", (8).to_bytes(8, "little"), 1, 0, 1, 1, 0, 0)
    worker.calls.start(_fastpath.pack_batch(2, 0, [columns]))
    assert worker.result(2) == 4.0


def test_the_table_knows_what_was_begun_until_so_many_others_were(make: Make) -> None:
    async def t() -> None: ...

    worker = make(t)
    first = worker.start("t")
    assert worker.table.has_begun(first)
    worker.result(first)
    later = []
    for _ in range(2 * MOST - 1):
        assert worker.table.has_begun(first)
        later.append(worker.start("t"))
        worker.result(later[-1])
    assert all(map(worker.table.has_begun, [first, *later]))
    last = worker.start("t")
    assert not worker.table.has_begun(first)
    assert all(map(worker.table.has_begun, [*later, last]))
    assert not worker.table.has_begun(last + 1)
    assert worker.page.finished == 2 * MOST


def test_the_table_keeps_answers_of_the_last_calls(make: Make) -> None:
    async def t(size: int) -> bytes:
        return bytes(size)

    worker = make(t)
    small, large = worker.start("t", 10), worker.start("t", 5000)
    assert worker.table.answer(small) == b""
    worker.wait(small, large)
    assert worker.table.answer(small) == worker.answers[small]
    assert worker.table.answer(large) == b"", "it is too large to be kept"


def test_the_table_tells_for_which_call_the_worker_is_to_be_killed(make: Make) -> None:
    gate = Gate()
    worker = make(named(gate.passes, "t"), seconds=5.0)
    one, two = worker.start("t", 1), worker.start("t", 2)
    now = time.monotonic_ns()
    assert worker.table.overdue(now) == []
    assert worker.table.overdue(now + int((5.0 + CANCEL_GRACE_S - 1.0) * 1e9)) == []
    assert sorted(worker.table.overdue(now + int((5.0 + CANCEL_GRACE_S) * 1e9))) == [one, two]
    worker.loop.wait(0.001)
    gate.events[1].set()
    worker.wait(one)
    assert worker.table.overdue(LATE) == [two]


def test_calls_of_a_router_that_is_gone_run_on_and_are_not_answered(make: Make) -> None:
    gate = Gate()
    worker = make(named(gate.passes, "t"))
    old = worker.start("t", 1)
    worker.loop.wait(0.001)
    worker.calls.forget()
    assert worker.table.has_begun(old)
    new = [worker.start("t", 2 + n) for n in range(MOST)]
    worker.loop.wait(0.001)
    assert worker.calls.count == MOST + 1
    for event in gate.events.values():
        event.set()
    worker.wait(*new)
    assert old not in worker.answers
    assert worker.calls.count == 0


def test_a_page_that_a_task_has_overwritten_is_read_within_its_bounds() -> None:
    memory = bytearray(layouts.PROGRESS_BYTES)
    table = _fastpath.CallTable(_fastpath.ProgressPage(memory))
    memory[: layouts.PROGRESS_HEAD] = b"\xff" * layouts.PROGRESS_HEAD
    assert not table.has_begun(1)
    assert table.overdue(LATE) == []
    memory[4096 : layouts.PROGRESS_HEAD] = b"\x01" * (layouts.PROGRESS_HEAD - 4096)
    assert len(table.overdue(LATE)) == 2048
    assert len(table.answer(int.from_bytes(b"\x01" * 8))) <= 4096
    with pytest.raises(IndexError):
        table.begin(2048, 1)
