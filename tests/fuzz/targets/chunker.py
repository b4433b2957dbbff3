"""The chunker: any package is cut as the contract says, and its chunks are spread over any workers."""

from __future__ import annotations

import struct

from taskengine import _fastpath
from taskengine.broker.chunking import cut, spread
from taskengine.protocol import limits
from tests.packages import package

MAX_BYTES = 64
TOKENS = [struct.pack("<I", value) for value in (1, 2, 9, 10, 11, 63, 80, 4000, 2**16, 2**21)]
_HEAD = struct.Struct("<IIBBHHH")
_WORKER = struct.Struct("<HH")
MOST_WORKERS, MOST_TASKS = 32, 300


def seeds() -> list[bytes]:
    """The contract's own figures, and others at the edges."""
    cases = [
        (63, 10, 2),
        (4000, 50, 2),
        (1, 10, 4),
        (0, 10, 2),
        (2**21, 1, 32),
        (2**21, 2**31 - 1, 3),
        (7, 0, 2),
        (10, 10, 3),
    ]
    workers = [(0, 10), (5, 1), (3, 100), (0, 0)]
    packed = [_HEAD.pack(tasks, size, workers, tasks % 7, tasks % 99, 1, 7) for tasks, size, workers in cases]
    return [
        head + b"".join(_WORKER.pack(*worker) for worker in workers[: 1 + place % 4])
        for place, head in enumerate(packed)
    ]


def fuzz(data: bytes) -> None:
    """Tasks, CHUNKING_SIZE, workers, the places of two slices, the cost of a chunk, each worker's load and room."""
    tasks, size, workers, runs, first, length, cost = _HEAD.unpack(data[: _HEAD.size].ljust(_HEAD.size, b"\0"))
    tasks, workers = tasks % (limits.MAX_TASKS + 1), 1 + workers % MOST_WORKERS
    _check_cut(tasks, size % 2**31 or None, workers)
    _check_package(1 + tasks % MOST_TASKS, size % 40 or None, 1 + runs % 4, first, length)
    rest = data[_HEAD.size :][: _WORKER.size * MOST_WORKERS]
    crew = list(_WORKER.iter_unpack(rest[: len(rest) // _WORKER.size * _WORKER.size]))
    if crew:
        loads, rooms = [load / 8 for load, _ in crew], [room / 8 for _, room in crew]
        _check_spread(first, (1 + cost) / 8, loads, rooms)


def _check_cut(tasks: int, size: int | None, workers: int) -> None:
    made = cut(tasks, size, workers)
    assert made.start(0) == 0
    assert made.start(made.chunks) == tasks
    if size is None:
        assert made.chunks == min(tasks, 1)
        return
    least = -(-tasks // size)
    assert made.chunks == (min(-(-least // workers) * workers, tasks) if tasks > 1 else tasks)
    assert 0 <= made.larger < max(made.chunks, 1)
    assert made.size + (made.larger > 0) <= size
    for number in {0, made.larger, made.chunks // 2, made.chunks - 1}:
        if 0 <= number < made.chunks:
            start, stop = made.start(number), made.start(number + 1)
            assert stop - start in (made.size, made.size + 1)
            assert stop - start >= 1
            assert made.number(start) == made.number(stop - 1) == number


def _check_package(tasks: int, size: int | None, runs: int, first: int, length: int) -> None:
    """A slice of it holds the chunks that its package was cut into, from whichever task it begins."""
    made = package(tasks, lanes=[(str(run), tasks // runs + (run < tasks % runs)) for run in range(min(runs, tasks))])
    made.cut(size, {str(run): run for run in range(1, runs)})
    for run in made.flight.chunks.runs:
        start = run.first + first % (run.stop - run.first)
        stop = start + 1 + length % (run.stop - start)
        [(_, _, _, parts)] = _fastpath.read_batch(_fastpath.pack_batch(1, 0, [made.section(run, start, stop)]))
        assert parts == [(part, end - begin) for part, begin, end in made.flight.chunks.between(start, stop)]


def _check_spread(chunks: int, cost: float, loads: list[float], rooms: list[float]) -> None:
    counts = spread(chunks, cost, loads, rooms)
    most = [max(0, -int(-room // cost)) for room in rooms]
    assert sum(counts) == min(chunks, sum(most))
    assert all(0 <= count <= limit for count, limit in zip(counts, most, strict=True))
    heights = [load + count * cost for load, count in zip(loads, counts, strict=True)]
    free = [height for height, count, limit in zip(heights, counts, most, strict=True) if count < limit]
    for height, count in zip(heights, counts, strict=True):
        if count and free:
            assert height - cost <= min(free) + cost * 1e-6, "who had more to do was given more"
