"""Holds the type of calls, and gives those that stop the machine one id, for every route by which they travel. Pure."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from taskengine import _fastpath
from taskengine.errors import text_of
from taskengine.protocol.limits import MAX_TASKS

Call = tuple[str, Sequence[Any], Mapping[str, Any]]
Frames = tuple[bytes, bytes]

STOP_TASK: Final = "system.stop"
_LANES_STOP: Final = f".{STOP_TASK}"
MAX_WHY: Final = 200
"""Characters of the reason that are sent."""


class Order(NamedTuple):
    """One stop: a unique id, and the reason."""

    id: bytes
    why: str


def stops_machine(task: object) -> bool:
    """Return whether the task of this name stops the machine."""
    return isinstance(task, str) and task.endswith(STOP_TASK) and (task == STOP_TASK or task.endswith(_LANES_STOP))


def order_of(call: Call, id: bytes) -> Order:
    """Return the stop that a call asks for: with this id, unless it names a valid one."""
    _, args, kwargs = call
    given = {**dict(zip(("id", "why"), args, strict=False)), **kwargs}
    own = given.get("id")
    return Order(own if isinstance(own, bytes) and own else id, text_of(given.get("why", ""))[:MAX_WHY])


def identified(names: Sequence[str], index: bytes, body: bytes, id: bytes) -> tuple[Frames, Order]:
    """Return the tasks of a package whose calls that stop the machine all name one id, and the stop that they ask for.

    That is this id, unless the first of them has its own.

    Otherwise the engine would count one stop for the package and another one for the routes that only stops take, and
    whichever came later would undo an arm between them.
    """
    wanted = bytes(map(stops_machine, names))
    calls = {
        position: _call(names, body[begin:end])
        for position, begin, end in _fastpath.find_tasks(index, body, wanted, MAX_TASKS)
    }
    if not calls:
        return (index, body), Order(id, "")
    order = order_of(next(iter(calls.values())), id)
    ends = memoryview(index).cast("I")
    tasks = [body[begin:end] for begin, end in itertools.pairwise([0, *ends])]
    places = {name: place for place, name in enumerate(names)}
    for position, (name, args, kwargs) in calls.items():
        if not args:  # else it says its id itself, or fails
            _, tasks[position] = _fastpath.pack_calls([(name, args, {"id": order.id, **kwargs})], places, True)
    sizes = array("I", itertools.accumulate(map(len, tasks)))
    return (sizes.tobytes(), b"".join(tasks)), order


def without_id(call: Call) -> Call:
    """Return a call as an engine of version 0.1.0 takes it, where stops have no id."""
    name, args, kwargs = call
    if "id" in kwargs and stops_machine(name):
        return name, args, {key: value for key, value in kwargs.items() if key != "id"}
    return call


def _call(names: Sequence[str], task: bytes) -> Call:
    i, args, *kwargs = _fastpath.unpack(task, 1, bytes, True)[0]
    return names[i], args, kwargs[0] if kwargs else {}
