from __future__ import annotations

from typing import Any

import pytest

from taskengine.broker.broker import Broker
from taskengine.config.settings import Settings
from taskengine.errors import Overloaded, ProtocolError, TaskFailed
from taskengine.protocol.messages import Info, Request, RequestKind, SourceStats, Stats, TaskInfo
from taskengine.router.permissions import KnownClient
from taskengine.router.questions import LATER, RELOADS_ASKED, Questions
from taskengine.runtime.control import ReloadRequested, Report
from taskengine.security.audit import Audit
from tests.brokers import broker
from tests.packages import package

ROUTE = (b"client",)
TASKS = [TaskInfo("wave", "", "()", "", None, False, "x")]


class Desk:
    """Questions about a broker, as they are asked by one client."""

    def __init__(self, asked_of: Broker | None = None) -> None:
        self.told: list[Report] = []
        self.broker = asked_of or broker()
        audit = Audit(None, lambda line: None)
        self.made = Questions(Settings(), self.broker, frozenset({"wave", "halt"}), audit, self.told.append, lambda: 5)
        self.made.learn(TASKS)
        self.client = KnownClient("laptop", None, {"wave": ""})

    def ask(self, kind: RequestKind, *frames: bytes, serial: int = 1) -> Any:
        return self.made.answer((ROUTE, Request(kind, serial, "laptop"), [b"", *frames], self.client))


def test_each_kind_of_question_has_its_answer() -> None:
    desk = Desk()
    info = desk.ask(RequestKind.INFO)
    assert isinstance(info, Info)
    assert info.stop_tasks == ["wave"], "those that the client may call"
    assert desk.ask(RequestKind.TASKS) == TASKS
    desk.broker.accept(package(3))
    assert desk.ask(RequestKind.PROGRESS) == [("serial", 0, 3)]
    assert desk.ask(RequestKind.CANCEL, b"\x92\x00\xc0") is None
    assert len(desk.broker.revoke()) == 1


def test_the_counters_come_with_what_others_count() -> None:
    desk = Desk()
    desk.made.restarts = {"task": 2}
    desk.made.overruns["data"] = [SourceStats("arm", 0.1, 0.2, 3)]
    stats = desk.ask(RequestKind.STATS)
    assert isinstance(stats, Stats)
    assert (stats.restarts, stats.bytes_in_flight, [source.topic for source in stats.sources]) == (
        {"task": 2},
        5,
        ["arm"],
    )


def test_a_reload_is_answered_when_it_has_ended_and_only_to_those_who_asked_before_it_began() -> None:
    desk = Desk()
    assert [desk.ask(RequestKind.RELOAD, serial=serial) for serial in (1, 2)] == [LATER, LATER]
    assert len(desk.told) == 1
    assert isinstance(desk.told[0], ReloadRequested)
    desk.made.begin_reload()
    desk.ask(RequestKind.RELOAD, serial=3)
    assert desk.made.end_reload("") == [(ROUTE, 1, None), (ROUTE, 2, None)]
    desk.made.begin_reload()
    ((_, serial, error),) = desk.made.end_reload("it cannot be loaded")
    assert serial == 3
    assert isinstance(error, TaskFailed)
    assert desk.made.end_reload("") == []


def test_requests_for_a_reload_are_not_kept_without_limit() -> None:
    desk = Desk()
    for serial in range(RELOADS_ASKED):
        desk.ask(RequestKind.RELOAD, serial=serial)
    with pytest.raises(Overloaded):
        desk.ask(RequestKind.RELOAD)


def test_what_is_no_question_is_malformed() -> None:
    with pytest.raises(ProtocolError, match="unknown"):
        Desk().ask(RequestKind.PACKAGE)
