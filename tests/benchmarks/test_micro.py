"""Costs of the compiled calls and the broker: `make bench` measures; `make test` runs each once, asserts no time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.ours import message
from taskengine import _fastpath
from taskengine.broker.broker import Broker
from taskengine.broker.package import DEFAULT_LANE, Package, encode_head
from taskengine.broker.tuning import SLICE_NS
from taskengine.client.calls import Call
from taskengine.protocol.layouts import Format
from taskengine.registry.registry import Registry
from taskengine.tasks import task_count
from taskengine.worker.worker import BatchRunner
from tests.batches import join_frames, no_foreign, section_of

TASKS = 4000
CHUNK = 50
CHUNKS = TASKS // CHUNK
ARGUMENTS = [[2] * TASKS, [3] * TASKS]
NAMES = ["task_count"]
WORKERS = 2


SIZES = (CHUNK, 0, CHUNK)
PACKAGES = {tasks: _fastpath.pack_map([[2] * tasks, [3] * tasks]) for tasks in (1, CHUNK, TASKS)}


def packed(tasks: int) -> bytes:
    """A batch of so many calls of task_count, in chunks of CHUNK."""
    sizes = SIZES if tasks > 1 else None
    return _fastpath.pack_batch(1, SLICE_NS, [section_of(PACKAGES[tasks], sizes=sizes, head=encode_head("1", NAMES))])


def frames(tasks: int) -> tuple[bytes, bytes]:
    """So many TASK frames of wire 0.1, each with its own md5."""
    return join_frames(message(tasks)[1:])


def resolve(head: bytes) -> list[Callable[..., object] | None]:
    return [task_count]


def failed(head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
    raise AssertionError(f"task {position} failed: {error}")


def no_error(data: bytes) -> object:
    raise AssertionError(data)


def no_decoding(frame: bytes, position: int) -> str:
    raise AssertionError(frame)


@pytest.mark.benchmark(group="client, 4000 tasks")
def test_pack_map(benchmark: BenchmarkFixture) -> None:
    index, _ = benchmark(_fastpath.pack_map, ARGUMENTS)
    assert len(index) == 4 * TASKS


@pytest.mark.benchmark(group="client, 4000 tasks")
def test_pack_calls(benchmark: BenchmarkFixture) -> None:
    calls: list[Call] = [("task_count", (2, 3), {})] * TASKS
    index, _ = benchmark(lambda: _fastpath.pack_calls(calls, {}))
    assert len(index) == 4 * TASKS


@pytest.mark.benchmark(group="client, 4000 tasks")
def test_unpack(benchmark: BenchmarkFixture) -> None:
    body = _fastpath.encode(2.5) * TASKS
    assert benchmark(_fastpath.unpack, body, TASKS, no_error) == [2.5] * TASKS


@pytest.mark.benchmark(group="worker")
@pytest.mark.parametrize("tasks", [1, CHUNK, TASKS])
def test_run_batch(benchmark: BenchmarkFixture, tasks: int) -> None:
    answer = benchmark(_fastpath.run_batch, packed(tasks), resolve, failed, no_foreign)
    bodies = b"".join(entry[5] for entry in _fastpath.read_answer(answer))
    assert _fastpath.unpack(bodies, tasks, no_error) == [2.5] * tasks


@pytest.mark.benchmark(group="worker")
def test_run_task_frames(benchmark: BenchmarkFixture) -> None:
    head = encode_head("1", b"1.5")
    section = section_of(frames(TASKS), sizes=SIZES, format=Format.LEGACY_JSON, head=head)
    turn = BatchRunner(Registry.load(["taskengine.tasks"]))
    answer = benchmark(turn.run, _fastpath.pack_batch(1, 0, [section]))
    assert sum(entry[5].count(b': 2.5"') for entry in _fastpath.read_answer(answer)) == TASKS


@pytest.mark.benchmark(group="router, 4000 tasks")
def test_frame_names(benchmark: BenchmarkFixture) -> None:
    assert benchmark(_fastpath.frame_names, *frames(TASKS), no_decoding) == [(0, TASKS, "task_count")]


@pytest.mark.benchmark(group="router, 4000 tasks")
def test_pack_batch(benchmark: BenchmarkFixture) -> None:
    batch = benchmark(packed, TASKS)
    assert len(_fastpath.read_batch(batch)[0][3]) == CHUNKS


@pytest.mark.benchmark(group="router, 4000 tasks")
def test_assembly(benchmark: BenchmarkFixture) -> None:
    body = _fastpath.encode(2.5) * CHUNK

    def assemble() -> bytes:
        assembly = _fastpath.Assembly(TASKS)
        for first in range(TASKS - CHUNK, -1, -CHUNK):
            assembly.put(first, first + CHUNK, body)
        return assembly.join()

    assert benchmark(assemble) == body * CHUNKS


@pytest.mark.benchmark(group="router, 4000 tasks")
def test_broker(benchmark: BenchmarkFixture) -> None:
    broker = Broker(CHUNK, {DEFAULT_LANE: WORKERS})
    for number in range(WORKERS):
        broker.join(f"TASK-{number}", DEFAULT_LANE)
    index, _ = _fastpath.pack_map(ARGUMENTS)
    body = _fastpath.encode(2.5) * CHUNK

    def route() -> int:
        package = Package((b"client",), "1", NAMES, tuple(NAMES), index, b"")
        package.lanes = [(DEFAULT_LANE, TASKS)]
        broker.accept(package)
        whole = 0
        while batches := broker.dispatch():
            for made in batches:
                answers = [
                    (slice.package.flight.job, slice.first, slice.stop, 0, 50 * (slice.stop - slice.first), body)
                    for slice in made.slices
                ]
                whole += len(broker.finish(made.worker, answers))
        return whole

    assert benchmark(route) == 1
