"""A client as the router lets it act, by its name and the policy. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from taskengine.broker.package import DEFAULT_LANE, Package
from taskengine.config.policy import Policy, Rates, Rights
from taskengine.errors import NotAllowed, Overloaded, shortened
from taskengine.protocol.layouts import DENIED_LANES, MODULE_MARK
from taskengine.protocol.limits import MAX_NAME_LENGTH
from taskengine.protocol.messages import Priority, RequestKind, TaskInfo

CLIENTS_KEPT = 1024
"""The most clients whose rights are remembered."""
_CALLS: Mapping[RequestKind, Literal["reload", "stats"]] = {RequestKind.RELOAD: "reload", RequestKind.STATS: "stats"}


class _Bucket:
    """The budget that is left of one rate."""

    def __init__(self, rate: float, unit: str) -> None:
        self._rate = self._left = rate
        self._unit = unit
        self._since = 0.0

    def check(self, now: float) -> None:
        self._left = min(self._rate, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left <= 0:
            wait = -self._left / self._rate + 1 / self._rate
            raise Overloaded(f"this client may send {self._rate:g} {self._unit} a second", retry_after=wait)

    def charge(self, amount: float) -> None:
        self._left -= amount


class RateAllowance:
    """The amount that a client may send at this moment: its `rates` a second, after a second of rest as much at once.

    A package may be larger than that; the next then waits for longer (token buckets that may be overdrawn).
    """

    def __init__(self, rates: Rates) -> None:
        units = ("tasks", "bytes", "microseconds of the router's time")
        places = [place for place, rate in enumerate(rates) if rate < float("inf")]
        self._buckets = {place: _Bucket(rates[place], units[place]) for place in places}

    def check(self, now: float) -> None:
        """Check that something may be sent at `now`, monotonic s. Raises Overloaded with the time to wait."""
        for bucket in self._buckets.values():
            bucket.check(now)

    def charge(self, tasks: int, size: int = 0, microseconds: float = 0.0) -> None:
        """Charge for tasks and bytes that were sent, and for the router's time."""
        amounts = (tasks, size, microseconds)
        for place, bucket in self._buckets.items():
            bucket.charge(amounts[place])


class _Lanes(dict[str, str]):
    """The lanes of tasks; tasks that are not allowed have none."""

    def __init__(self, lanes: Mapping[str, str], rights: Rights) -> None:
        super().__init__({name: _lane(rights, name, lane) for name, lane in lanes.items()})
        self._rights = rights

    def get(self, name: str, default: str = DEFAULT_LANE) -> str:  # type: ignore[override]  # the default is a lane
        """Return a lane. A client that may not call a name does not learn whether there is such a task."""
        return self[name] if name in self else _lane(self._rights, name, default)


def _lane(rights: Rights, name: str, lane: str) -> str:
    return lane if rights.may_call(name, lane.partition(MODULE_MARK)[0]) else DENIED_LANES + name


class KnownClient:
    """The client `name`, with these `rights`, or, with None, all; `lanes` are those of the tasks."""

    def __init__(
        self, name: str, rights: Rights | None, lanes: Mapping[str, str], allowance: RateAllowance | None = None
    ) -> None:
        self.name = name
        self.lanes = lanes if rights is None else _Lanes(lanes, rights)
        self._rights = rights
        self._allowance = allowance
        self.is_limited = rights is not None
        """Whether there is a policy."""

    def admit(self, package: Package, now: float) -> None:
        """Let in a package that was read with our lanes. Raises NotAllowed, Overloaded for all of it."""
        if self._rights is None:
            return
        if not package.urgency.is_urgent and not self._rights.may_prioritise(Priority(package.priority)):
            raise self._denied(f"send with priority {Priority(package.priority).name.lower()}")
        if package.data_request is not None:
            topic, publishes = package.data_request
            may = self._rights.may_publish if publishes else self._rights.may_subscribe
            if not may(topic):
                verb = "publish on" if publishes else "read"
                raise self._denied(f"{verb} topic {shortened(topic, MAX_NAME_LENGTH)!r}")
        if self._allowance is not None and not package.urgency.is_exempt:
            self._allowance.check(now)

    def charge(self, package: Package) -> None:
        """Charge for a package that was accepted."""
        if self._allowance is not None and not package.urgency.is_exempt:
            self._allowance.charge(max(1, package.count), package.bytes)

    def check_rate(self, now: float) -> None:
        """Check that a request that is no package may be sent. Raises Overloaded."""
        if self._allowance is not None:
            self._allowance.check(now)

    def spend(self, seconds: float) -> None:
        """Charge for the time, in s, that the router spent on a message, accepted or not."""
        if self._allowance is not None:
            self._allowance.charge(0, 0, seconds * 1e6)

    def noted(self, package: Package) -> list[str]:
        """Return the names of the package's tasks whose calls are noted in the audit log although it may call them."""
        if self._rights is None or not any(entry.audit for entry in self._rights.entries):
            return []
        denied = frozenset(package.denied())
        return [name for name in package.kind if self._rights.is_noted(name) and name not in denied]

    def may_call(self, task: str) -> bool:
        """Return whether there is such a task and the client may call it."""
        return not self.lanes.get(task, DENIED_LANES).startswith(DENIED_LANES)

    def may_subscribe(self, topic: str) -> bool:
        """Return whether it may be told what is published on a topic."""
        return self._rights is None or self._rights.may_subscribe(topic)

    def may_use(self, device: str) -> bool:
        """Return whether the client may have tasks act on the device."""
        return self._rights is None or self._rights.may_use(device)

    def check_call(self, kind: RequestKind) -> None:
        """Check that the client may ask this of the engine. Raises NotAllowed."""
        call = _CALLS.get(kind)
        if self._rights is not None and call is not None and not self._rights.may_ask(call):
            raise self._denied(f"ask for {call}")

    def tasks(self, tasks: Sequence[TaskInfo]) -> Sequence[TaskInfo]:
        """Return the tasks that the client may call."""
        if self._rights is None:
            return tasks
        return [task for task in tasks if self._rights.may_call(task.name, task.lane)]

    def _denied(self, what: str) -> NotAllowed:
        return NotAllowed(f"the engine's policy does not let client {self.name!r} {what}")


class ClientTable:
    """All known clients by name. Without a `policy` each may do everything."""

    def __init__(self, policy: Policy | None) -> None:
        self._policy = policy
        self._lanes: Mapping[str, str] = {}
        self._known: dict[str, KnownClient] = {}
        self._allowances: dict[str, RateAllowance] = {}
        """At most as many as there are keys."""
        self.own = KnownClient("", None, {})
        """The engine's own client, which may do everything."""

    def obey(self, policy: Policy | None) -> None:
        """Replace the policy, and begin to count its rates."""
        self._policy = policy
        self._known.clear()
        self._allowances.clear()

    def learn(self, lanes: Mapping[str, str]) -> None:
        """Replace the lanes of the tasks."""
        self._lanes = lanes
        self._known.clear()
        self.own = KnownClient("", None, lanes)

    def of(self, name: str) -> KnownClient:
        """Return the client of that name."""
        client = self._known.get(name)
        if client is None:
            if len(self._known) >= CLIENTS_KEPT:
                self._known.pop(next(iter(self._known)))
            rights = None if self._policy is None else self._policy.rights(name)
            client = self._known[name] = KnownClient(name, rights, self._lanes, self._allowance(name, rights))
        return client

    def _allowance(self, name: str, rights: Rights | None) -> RateAllowance | None:
        """Return the allowance of the client. It outlives changes of the tasks."""
        if rights is None or rights.rates == Rates():
            return None
        return self._allowances.setdefault(name, RateAllowance(rights.rates))
