"""A broker with its workers, and packages that are run by it."""

from __future__ import annotations

from taskengine.broker.broker import Broker
from taskengine.broker.lane import Batch
from taskengine.broker.package import Package
from taskengine.broker.tuning import BATCH_NS
from tests.packages import CHEAP_NS, answers

HEAVY_NS = 100 * BATCH_NS


def tasks_of(batch: Batch) -> int:
    return sum(slice.stop - slice.first for slice in batch.slices)


def broker(size: int | None = 10, workers: int = 2, **lanes: int) -> Broker:
    made = Broker(size, {"": workers, **lanes})
    for number in range(workers):
        made.join(f"w{number}", "")
    return made


def run_all(made: Broker, ns_a_task: int = CHEAP_NS) -> list[Package]:
    whole = made.revoke()
    while batches := made.dispatch():
        for batch in batches:
            whole += made.finish(batch.worker, answers(batch, ns_a_task))
        whole += made.revoke()
    return whole


def ended(*results: str) -> bytes:
    return b"".join(
        b"<%d%b>" % (position, f" {kind}".encode() if kind else b"") for position, kind in enumerate(results)
    )
