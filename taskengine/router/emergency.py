"""Stops of clients, of the machine or of a device: they act when they are received, past the lanes. Pure.

A package that calls a stop stops the machine, and one that calls a device's rest has that device rest, before anything
else is decided about it. The tasks themselves are answered when their turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from taskengine.broker.package import Called, Package
from taskengine.errors import NotAllowed, TaskEngineError, TaskFailed, UnknownTask, shortened
from taskengine.protocol.limits import MAX_NAME_LENGTH, MAX_TOKEN
from taskengine.protocol.messages import Stop
from taskengine.router.permissions import KnownClient

RESTS_LOOKED_FOR = 4096
"""Calls of a package that rest a device and act when it is received."""
CONFIRM_NS = 200_000_000
"""How long a stop waits until every lane is safe before it is answered that this is not confirmed, beside ramps."""
WAITING = 4096
"""Stops that wait for that; others are answered at once."""
Route = tuple[bytes, ...]


class StopCalls(Protocol):
    """The machine, as far as it takes energy away."""

    stop_tasks: frozenset[str]
    rest_tasks: Mapping[str, str]

    @property
    def ramp_ns(self) -> int:
        """How much longer a stop may take because outputs ramp down."""

    def stop(self, now: int, *, by: str = "", why: str = "", id: bytes = b"") -> int:
        """Stop; return the number of the stop, which is the same for the same id."""

    def rest(self, task: str, device: object, order: int, position: int) -> bool:
        """Bring a device to its safe state; return whether there is such a device."""

    def stop_number(self) -> int:
        """Return the number of the stop that is in force, 0 for none."""

    def unconfirmed(self) -> list[str]:
        """Return the lanes that are not known to be safe since the latest stop."""


class LateAnswer(NamedTuple):
    """An answer to a request that had to wait: nil where there is no error."""

    route: Route
    serial: int
    error: TaskEngineError | None


class _Waiting(NamedTuple):
    route: Route
    serial: int
    until: int


class EmergencyStops:
    """Stops and rests `machine`, where there is one; `stamp` makes a time, in ns, the next in the order of packages.

    `note` writes into the audit log: an event and its fields.
    """

    def __init__(self, machine: StopCalls | None, stamp: Callable[[int], int], note: Callable[..., None]) -> None:
        self._machine = machine
        self._stamp = stamp
        self._note = note
        self._names = frozenset() if machine is None else machine.stop_tasks.union(machine.rest_tasks)
        self.waiting: list[_Waiting] = []
        """Stops whose lanes are not known to be safe yet."""

    @property
    def names(self) -> frozenset[str]:
        """Return the tasks that stop the machine, or bring a device to its safe state."""
        return self._names

    def stop(self, route: Route, serial: int, asked: Stop, client: KnownClient, now: int) -> list[LateAnswer]:
        """Stop, at `now` in ns; return the answer unless it has to wait. Raises NotAllowed, UnknownTask."""
        machine = self._machine
        if machine is None:
            raise UnknownTask("this engine has no [hardware] to stop", name="system.stop", nearest=[])
        if not any(map(client.may_call, machine.stop_tasks)):
            raise NotAllowed(f"the engine's policy does not let client {client.name!r} stop the machine")
        self._stop(machine, asked, client, now)
        late = machine.unconfirmed()
        if not late:
            return [LateAnswer(route, serial, None)]
        if len(self.waiting) >= WAITING:
            return [LateAnswer(route, serial, _not_confirmed(late))]
        self.waiting.append(_Waiting(route, serial, now + CONFIRM_NS + machine.ramp_ns))
        return []

    def answers(self, now: int) -> list[LateAnswer]:
        """Return the answers that can be given at `now`, in ns. Call this often while something is `waiting`."""
        if not self.waiting or self._machine is None:
            return []
        late = self._machine.unconfirmed()
        error = _not_confirmed(late) if late else None
        over = [LateAnswer(one.route, one.serial, error) for one in self.waiting if not late or one.until <= now]
        self.waiting = [one for one in self.waiting if late and one.until > now]
        return over

    def heed(self, package: Package, called: Collection[str], client: KnownClient, now: int) -> None:
        """Carry out what a package stops in which tasks of these names are called, at `now` in ns."""
        machine = self._machine
        if machine is None or self._names.isdisjoint(called):
            return
        allowed = {name for name in called if name in self._names and client.may_call(name)}
        stops = machine.stop_tasks & allowed
        if stops:
            call = next(iter(package.calls(stops, 1)), None)
            self._stop(machine, _stop_of(call), client, now)
        rests: dict[tuple[str, str], int] = {}
        for call in package.calls(allowed - stops, RESTS_LOOKED_FOR) if allowed > stops else ():
            device = call.args[0] if call.args else call.kwargs.get("device")
            if isinstance(device, str) and client.may_use(device):
                rests[call.name, device] = call.position
        for (name, device), position in rests.items():
            machine.rest(name, device, package.sender.origin.received, position)

    def _stop(self, machine: StopCalls, asked: Stop, client: KnownClient, now: int) -> None:
        was_stopped = machine.stop_number() > 0
        number = machine.stop(self._stamp(now), by=client.name, why=asked.why, id=asked.id)
        if machine.stop_number() and not was_stopped:
            self._note("stopped", client=client.name, stop=number, why=shortened(asked.why, MAX_NAME_LENGTH))


def _stop_of(call: Called | None) -> Stop:
    """Return what a call of a stop says of it, as far as that can be read. It stops in any case."""
    arguments: dict[str, Any] = {}
    if call is not None:
        arguments = {**dict(zip(("id", "why"), call.args, strict=False)), **call.kwargs}
    id, why = arguments.get("id"), arguments.get("why")
    known = id if isinstance(id, bytes) and len(id) <= MAX_TOKEN else b""
    return Stop(known, why if isinstance(why, str) else "")


def _not_confirmed(lanes: Sequence[str]) -> TaskFailed:
    text = f"the machine is stopped, but nobody has confirmed yet that lane {', '.join(lanes)} is safe"
    return TaskFailed(text, type="NotConfirmed")
