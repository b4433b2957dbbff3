from __future__ import annotations

import pytest

from taskengine.broker.lane import Slice
from taskengine.broker.workers import Workers
from taskengine.errors import ProtocolError
from tests.packages import package


def slice_of(tasks: int) -> Slice:
    made = package(tasks)
    made.cut(None, {})
    return Slice(made, made.flight.chunks.runs[0], 0, tasks, 0.0)


def test_a_worker_joins_once_and_leaves_once() -> None:
    made = Workers(1)
    worker = made.join("w", "", ())
    with pytest.raises(ProtocolError, match="joined already"):
        made.join("w", "", ())
    assert made.is_free("w")
    assert made.leave("w") is worker
    assert made.leave("w") is None
    assert (made.is_free("w"), made.held("w")) == (False, range(0))


def test_no_two_workers_have_batches_of_the_same_numbers() -> None:
    made = Workers(7)
    first, second = made.join("v", "", ()), made.join("w", "", ())
    assert (first.first, second.first) == (7 << 32, 8 << 32)


def test_a_worker_without_a_batch_answers_nothing() -> None:
    made = Workers(1)
    worker = made.join("w", "", ())
    for name in ("w", "stranger"):
        with pytest.raises(ProtocolError, match="not given"):
            made.answered(name, None)
    worker.batches.append([slice_of(1)])
    assert made.answered("w", None) is worker.batches[0]
    assert made.held("w") == range(worker.first, worker.first + 1)
    assert not made.is_free("w")


def test_a_worker_hands_back_once_what_is_cancelled_or_what_it_has_when_it_retires() -> None:
    made = Workers(1)
    cancelled, other = slice_of(2), slice_of(2)
    for name, each in (("v", cancelled), ("w", other)):
        made.join(name, "", ()).batches.append([each])
    cancelled.package.flight.cancellation.cancel_all()
    made.recall_cancelled({cancelled.package, other.package})
    assert made.recalls() == [("v", made["v"].first)]
    made.retire("w")
    made.exclude("v")
    assert made.recalls() == [("w", made["w"].first)]
    assert made.recalls() == []
    assert not any(worker.room() for worker in made.values())
