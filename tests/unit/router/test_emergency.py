from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from taskengine import _fastpath
from taskengine.broker import binary, legacy_json
from taskengine.broker.package import CALL_BYTES, Package
from taskengine.config.policy import Entry, Policy
from taskengine.errors import NotAllowed, TaskFailed, UnknownTask
from taskengine.protocol.messages import Origin, Request, RequestKind, Stop
from taskengine.router.emergency import CONFIRM_NS, RESTS_LOOKED_FOR, WAITING, EmergencyStops
from taskengine.router.permissions import ClientTable, KnownClient
from tests.batches import join_frames

LANES = {"system.stop": "pins", "motor.stop": "pins", "device.rest": "pins", "motor.forward": "pins", "count": ""}
ORIGIN = Origin(received=1000)
Call = tuple[str, Sequence[Any], Mapping[str, Any]]


class FakeMachine:
    """Notes what it is told."""

    stop_tasks = frozenset({"system.stop"})
    rest_tasks: Mapping[str, str] = {"motor.stop": "pins", "device.rest": "pins"}
    ramp_ns = 0

    def __init__(self) -> None:
        self.stops: list[tuple[int, str, str, bytes]] = []
        self.rests: list[tuple[str, object, int, int]] = []
        self.late: list[str] = []
        self.armed = 0

    def stop(self, now: int, *, by: str = "", why: str = "", id: bytes = b"") -> int:
        self.stops.append((now, by, why, id))
        return len(self.stops)

    def rest(self, task: str, device: object, order: int, position: int) -> bool:
        self.rests.append((task, device, order, position))
        return True

    def stop_number(self) -> int:
        return len(self.stops) if len(self.stops) > self.armed else 0

    def unconfirmed(self) -> list[str]:
        return self.late


class Desk:
    """A machine, who halts it, and the audit log."""

    def __init__(self, has_machine: bool = True) -> None:
        self.machine = FakeMachine()
        self.notes: list[str] = []
        machine = self.machine if has_machine else None
        self.halting = EmergencyStops(machine, lambda now: now + 1, lambda event, **fields: self.notes.append(event))

    def heed(self, package: Package, visitor: KnownClient) -> None:
        self.halting.heed(package, package.called(), visitor, 2000)


def visitor(**entry: object) -> KnownClient:
    """Of a client that may do this, or without any word everything."""
    visitors = ClientTable(Policy({"laptop": Entry(**entry)}) if entry else None)  # type: ignore[arg-type]  # many types
    visitors.learn(LANES)
    return visitors.of("laptop")


def packed_package(calls: Sequence[Call], listed: Sequence[str] = ()) -> Package:
    names = {name: place for place, name in enumerate(listed)}
    index, body = _fastpath.pack_calls(calls, names)
    request = Request(RequestKind.PACKAGE, 1, "x", list(names))
    return binary.read_package((b"id",), request, [b"", index, body], LANES, 1, ORIGIN)


def seed_package(calls: Sequence[Call]) -> Package:
    frames = [msgspec.json.encode({"task": name, "args": args, "kwargs": kwargs}) for name, args, kwargs in calls]
    return legacy_json.read_package((b"id",), b"{}", *join_frames(frames), LANES, 1, ORIGIN)


WIRES = pytest.mark.parametrize("package", [packed_package, seed_package])


@WIRES
def test_a_stop_acts_wherever_it_is_in_a_package(package: Any) -> None:
    desk = Desk()
    desk.heed(package([("motor.forward", ("wheel", 1), {})] * 5000 + [("system.stop", (), {})]), visitor())
    assert desk.machine.stops == [(2001, "laptop", "", b"")]
    assert desk.notes == ["stopped"]


@WIRES
def test_a_name_that_is_not_called_or_may_not_be_stops_nothing(package: Any) -> None:
    desk = Desk()
    desk.heed(package([("count", (1, 2), {})]), visitor())
    desk.heed(packed_package([("count", (1, 2), {})], ["system.stop", "motor.stop", "count"]), visitor())
    desk.heed(package([("system.stop", (), {}), ("motor.stop", ("wheel",), {})]), visitor(tasks=("count",)))
    assert (desk.machine.stops, desk.machine.rests) == ([], [])


def test_a_repeated_stop_says_its_id() -> None:
    desk = Desk()
    desk.heed(packed_package([("system.stop", (b"once",), {"why": "a hand"})]), visitor())
    desk.heed(packed_package([("system.stop", (), {"id": b"x" * 999, "why": 7})]), visitor())
    desk.heed(packed_package([("system.stop", (bytes(2 * CALL_BYTES),), {})]), visitor())
    assert desk.machine.stops == [(2001, "laptop", "a hand", b"once"), *[(2001, "laptop", "", b"")] * 2]
    assert desk.notes == ["stopped"], "a stop of what is stopped is no news"


def test_what_cannot_be_read_stops_all_the_same() -> None:
    desk = Desk()
    index, body = join_frames([b"\x92\x00\x07", b"\x92\x00\xc1"])
    request = Request(RequestKind.PACKAGE, 1, "x", ["system.stop"])
    desk.heed(binary.read_package((), request, [b"", index, body], LANES, 1, ORIGIN), visitor())
    columns = Request(RequestKind.PACKAGE, 1, "x", ["system.stop"], columns=True)
    desk.heed(binary.read_package((), columns, [b"", b"i", bytes(8)], LANES, 1, ORIGIN), visitor())
    assert len(desk.machine.stops) == 2


@WIRES
def test_the_last_rest_of_a_device_counts(package: Any) -> None:
    desk = Desk()
    calls: list[Call] = [
        ("motor.stop", ("left",), {}),
        ("motor.forward", ("left", 1), {}),
        ("motor.stop", ("left",), {}),
        ("device.rest", (), {"device": "right"}),
        ("motor.stop", (), {}),
        ("motor.stop", (7,), {}),
        ("motor.stop", (["left"],), {}),
    ]
    desk.heed(package(calls), visitor())
    assert desk.machine.rests == [("motor.stop", "left", 1000, 2), ("device.rest", "right", 1000, 3)]
    assert desk.machine.stops == []


def test_rests_that_may_not_be_or_are_malformed_or_too_many_are_left_to_the_worker() -> None:
    desk = Desk()
    mine = visitor(tasks=("motor.*",), devices=("left",))
    desk.heed(packed_package([("motor.stop", ("right",), {}), ("device.rest", ("left",), {})]), mine)
    index, body = join_frames([b"\x92\x00\x07", b"\x93\x00\x90\x07", b"\x92\x00\xc1"])
    request = Request(RequestKind.PACKAGE, 1, "x", ["motor.stop"])
    desk.heed(binary.read_package((), request, [b"", index, body], LANES, 1, ORIGIN), mine)
    assert desk.machine.rests == []
    desk.heed(packed_package([("motor.stop", ("left",), {})] * (RESTS_LOOKED_FOR + 5)), mine)
    assert desk.machine.rests == [("motor.stop", "left", 1000, RESTS_LOOKED_FOR - 1)]


def test_a_stop_is_answered_once_every_lane_is_safe() -> None:
    desk = Desk()
    desk.machine.late = ["pins"]
    assert desk.halting.stop((b"id",), 7, Stop(b"once", "a hand"), visitor(), 0) == []
    assert desk.machine.stops == [(1, "laptop", "a hand", b"once")]
    assert desk.halting.answers(CONFIRM_NS - 1) == []
    waited = bool(desk.halting.waiting)
    desk.machine.late = []
    assert desk.halting.answers(CONFIRM_NS - 1) == [((b"id",), 7, None)]
    assert (waited, desk.halting.waiting) == (True, [])
    assert desk.halting.stop((b"id",), 8, Stop(), visitor(), 0) == [((b"id",), 8, None)]


def test_or_that_nobody_has_confirmed_it_in_time() -> None:
    desk = Desk()
    desk.machine.late = ["pins", "arm"]
    desk.halting.stop((b"id",), 7, Stop(), visitor(), 0)
    desk.halting.stop((b"id",), 8, Stop(), visitor(), 1)
    ((route, serial, error),) = desk.halting.answers(CONFIRM_NS)
    assert (route, serial) == ((b"id",), 7)
    assert isinstance(error, TaskFailed)
    assert error.type == "NotConfirmed"
    assert "pins, arm" in str(error)
    assert desk.halting.waiting


def test_a_stop_waits_longer_where_outputs_ramp_down() -> None:
    desk = Desk()
    desk.machine.late, desk.machine.ramp_ns = ["pins"], 300
    desk.halting.stop((b"id",), 7, Stop(), visitor(), 0)
    assert desk.halting.answers(CONFIRM_NS + 299) == []
    assert len(desk.halting.answers(CONFIRM_NS + 300)) == 1


def test_a_flood_of_stops_waits_for_nothing() -> None:
    desk = Desk()
    desk.machine.late = ["pins"]
    for serial in range(WAITING):
        assert desk.halting.stop((b"id",), serial, Stop(), visitor(), 0) == []
    (answer,) = desk.halting.stop((b"id",), WAITING, Stop(), visitor(), 0)
    assert isinstance(answer.error, TaskFailed)
    assert len(desk.machine.stops) == WAITING + 1


def test_who_may_not_stop_and_what_cannot_be_stopped() -> None:
    desk = Desk()
    with pytest.raises(NotAllowed, match="'laptop' stop the machine"):
        desk.halting.stop((), 1, Stop(), visitor(tasks=("motor.*",)), 0)
    assert desk.machine.stops == []
    without = Desk(has_machine=False)
    with pytest.raises(UnknownTask):
        without.halting.stop((), 1, Stop(), visitor(), 0)
    without.heed(packed_package([("system.stop", (), {})]), visitor())
    assert without.halting.answers(0) == []


def test_an_armed_machine_that_is_stopped_again_is_news() -> None:
    desk = Desk()
    for armed in (0, 1):
        desk.machine.armed = armed
        desk.halting.stop((), 1, Stop(), visitor(), 0)
    assert desk.notes == ["stopped", "stopped"]
