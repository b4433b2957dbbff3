from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from taskengine.runtime.control import Order, RejoinRouter, ReloadBegun, StartedWorker
from taskengine.supervisor.children import Children, as_told, worker_name


class StillChild(SimpleNamespace):
    """A child that keeps its orders."""

    def __init__(self, role: str, pid: int, place: int | None = None, online: bool = True) -> None:
        super().__init__(role=role, pid=pid, place=place, online=online, orders=[], recalls=0)

    def order(self, order: Order) -> None:
        self.orders.append(order)

    def recall(self) -> None:
        self.recalls += 1


def running(*children: StillChild) -> Children:
    made = Children()
    made.update({child.role: cast(Any, child) for child in children})
    return made


def test_an_order_goes_to_its_role_alone_and_nowhere_where_there_is_none() -> None:
    router, worker = StillChild("router", 7), StillChild("task worker 1", 8, 0)
    children = running(router, worker)
    children.tell_router(ReloadBegun())
    children.tell("guardian", ReloadBegun())
    assert (router.orders, worker.orders) == ([ReloadBegun()], [])


def test_a_router_is_told_of_the_workers_and_of_nobody_else() -> None:
    children = running(
        StillChild("router", 7), StillChild("task worker 1", 8, 0, False), StillChild("data worker 1", 9, 1)
    )
    assert children.workers() == [StartedWorker("TASK-8", 0, 8, False), StartedWorker("DATA-9", 1, 9, True)]
    assert as_told(children["router"]) == []


def test_a_worker_is_found_by_its_name_at_the_router() -> None:
    worker = StillChild("data worker 1", 9, 1)
    children = running(worker)
    assert children.named("DATA-9") == [worker]
    assert children.named("TASK-9") == []
    assert worker_name(children["data worker 1"]) == "DATA-9"


def test_all_join_another_router() -> None:
    workers = [StillChild("task worker 1", 8, 0), StillChild("data worker 1", 9, 1)]
    running(*workers).rejoin()
    assert [(worker.recalls, worker.orders) for worker in workers] == [(1, [RejoinRouter()])] * 2
