"""The processes of an engine by their roles, and the orders that go to them."""

from __future__ import annotations

from taskengine.runtime.control import Order, RejoinRouter, StartedWorker
from taskengine.supervisor.child import Child
from taskengine.supervisor.roles import ROUTER


class Children(dict[str, Child]):
    """The processes that run, by role."""

    def tell(self, role: str, order: Order) -> None:
        """Send an order to the process in that role, where there is one."""
        if role in self:
            self[role].order(order)

    def tell_router(self, order: Order) -> None:
        """Send an order to the router; where there is none, the next one is told all when it is online."""
        self.tell(ROUTER, order)

    def named(self, name: str) -> list[Child]:
        """Return the worker that has this name at the router, if it still runs."""
        return [child for child in self.values() if worker_name(child) == name]

    def workers(self) -> list[StartedWorker]:
        """Return what a new router is told of the workers."""
        return [told for child in self.values() for told in as_told(child)]

    def rejoin(self) -> None:
        """Have the workers connect to another router, and hand back what the last one sent."""
        for child in self.values():
            child.recall()
            child.order(RejoinRouter())


def as_told(child: Child) -> list[StartedWorker]:
    """Return what a router is told of a process: nothing unless it is a worker."""
    return [] if child.place is None else [StartedWorker(worker_name(child), child.place, child.pid, child.online)]


def worker_name(child: Child) -> str:
    """Return the name of a worker at the router."""
    return f"{'DATA' if child.role.startswith('data') else 'TASK'}-{child.pid}"
