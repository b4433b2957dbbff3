"""The processes of an engine by their roles, and the orders that go to them."""

from __future__ import annotations

from taskengine.runtime.control import Order, RejoinRouter, StartedWorker
from taskengine.supervisor.child import Child
from taskengine.supervisor.roles import ROUTER


class Children(dict[str, Child]):
    """The processes that run, by role."""

    def tell(self, role: str, order: Order) -> None:
        """Send an order to the process in that role, if there is one."""
        if role in self:
            self[role].order(order)

    def tell_router(self, order: Order) -> None:
        """Send an order to the router, if there is one; the next one gets all it needs when it is online."""
        self.tell(ROUTER, order)

    def named(self, name: str) -> list[Child]:
        """Return the worker that has this name at the router, if it still runs."""
        return [child for child in self.values() if worker_name(child) == name]

    def workers(self) -> list[StartedWorker]:
        """Return the workers as a new router needs to know them."""
        return [told for child in self.values() for told in as_told(child)]

    def rejoin(self) -> None:
        """Have the workers connect to another router, and hand back the tasks of the last one."""
        for child in self.values():
            child.recall()
            child.order(RejoinRouter())


def as_told(child: Child) -> list[StartedWorker]:
    """Return a process as a router needs to know it: nothing unless it is a worker."""
    return [] if child.place is None else [StartedWorker(worker_name(child), child.place, child.pid, child.online)]


def worker_name(child: Child) -> str:
    """Return the name of a worker at the router."""
    return f"{'DATA' if child.role.startswith('data') else 'TASK'}-{child.pid}"
