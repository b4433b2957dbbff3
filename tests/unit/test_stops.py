from __future__ import annotations

from typing import Any

import msgspec
import pytest

from taskengine.errors import NotAllowed, ProtocolError
from taskengine.messages import Kind, Reply, Request, decode_reply, encode_request
from taskengine.policy import Entry, Policy
from taskengine.stops import CONFIRM_NS, WAITING, Answer, Stops, may_stop

LANES = {"system.stop": "hardware", "legs.system.stop": "legs"}
ID = bytes(16)


class Machine:
    """Notes what it is told; `late` lanes are not safe."""

    stop_lanes = LANES

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, str, bytes]] = []
        self.late = ["legs"]

    def stop(self, now: int, *, by: str = "", why: str = "", id: bytes = b"") -> int:
        self.asked.append((now, by, why, id))
        return 7

    def unconfirmed(self) -> list[str]:
        return self.late


@pytest.fixture
def machine() -> Machine:
    return Machine()


def frames(kind: Kind = Kind.STOP, body: Any = (ID, "smoke")) -> list[bytes]:
    return [encode_request(Request(kind, 3, "anna")), msgspec.msgpack.encode(body)]


def head_of(answer: Answer) -> Reply:
    head = answer.frames[0]
    assert isinstance(head, bytes)
    return decode_reply(head)


def test_a_stop_is_answered_once_every_lane_is_safe(machine: Machine) -> None:
    stops = Stops(machine, None)
    stops.take((b"route",), frames(), "anonymous", 5)
    assert machine.asked == [(5, "anonymous", "smoke", ID)]
    assert stops.answers(6) == []
    assert stops.is_waiting
    machine.late = []
    [answer] = stops.answers(7)
    reply = head_of(answer)
    assert (answer.route, reply.serial, reply.error, reply.stop) == ((b"route",), 3, None, 7)
    assert answer.frames[1:] == [msgspec.msgpack.encode(None)]
    assert not stops.is_waiting


def test_one_that_nobody_confirms_is_answered_with_the_lane(machine: Machine) -> None:
    stops = Stops(machine, None)
    stops.take((b"route",), frames(), "anonymous", 5)
    assert stops.answers(4 + CONFIRM_NS) == []
    [answer] = stops.answers(5 + CONFIRM_NS)
    error = head_of(answer).error
    assert error is not None
    assert "lane legs has not confirmed" in error[1]
    assert error[2]["type"] == "NotConfirmed"


def test_no_crowd_has_the_process_remember_more_and_more(machine: Machine) -> None:
    stops = Stops(machine, None)
    for _ in range(WAITING + 5):
        stops.take((b"route",), frames(), "anonymous", 5)
    assert len(machine.asked) == WAITING + 5
    assert len(stops.answers(5)) == 5


def test_the_policy_says_who_may(machine: Machine) -> None:
    entries = {
        "anna": Entry(tasks=("legs.system.stop",)),
        "otto": Entry(tasks=("*",), lanes=("arm",)),
        "eve": Entry(tasks=("*",)),
    }
    policy = Policy(entries)
    assert [may_stop(policy, LANES, name) for name in ("anna", "otto", "eve", "nobody")] == [True, False, True, False]
    stops = Stops(machine, policy)
    with pytest.raises(NotAllowed, match="does not let client 'otto' stop the machine"):
        stops.take((b"route",), frames(), "otto", 5)
    assert machine.asked == []
    stops.take((b"route",), frames(), "anna", 5)
    assert len(machine.asked) == 1


def test_a_body_may_be_missing(machine: Machine) -> None:
    Stops(machine, None).take((b"route",), frames()[:1], "anonymous", 5)
    assert machine.asked == [(5, "anonymous", "", b"")]


@pytest.mark.parametrize(
    "message",
    [frames(Kind.INFO), frames(body=("text", 1)), frames(body=()), [*frames(), b""], [b"{}"], [frames()[0], b"\xc1"]],
)
def test_what_is_no_stop_stops_nothing(machine: Machine, message: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        Stops(machine, None).take((b"route",), message, "anonymous", 5)
    assert machine.asked == []
