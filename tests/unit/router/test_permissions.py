from __future__ import annotations

import pytest

from taskengine.broker.package import DataRequest, Urgency
from taskengine.config.policy import Entry, Policy, Rates
from taskengine.errors import NotAllowed, Overloaded
from taskengine.protocol.layouts import DENIED_LANES
from taskengine.protocol.messages import Priority, RequestKind, TaskInfo
from taskengine.router.permissions import CLIENTS_KEPT, ClientTable, KnownClient, RateAllowance
from tests.packages import Plain, package

LANES = {"servo.set": "arm", "task_count": "", "gpio.write": "io"}
TASKS = [TaskInfo(name, lane, "()", "", None, False, "m") for name, lane in LANES.items()]


def visitor(**entry: object) -> KnownClient:
    visitors = ClientTable(Policy({"laptop": Entry(**entry)}))  # type: ignore[arg-type]  # of many types
    visitors.learn(LANES)
    return visitors.of("laptop")


def data_request(topic: str, *, publishes: bool) -> Plain:
    made = package(1)
    made.data_request = DataRequest(topic, publishes)
    return made


def test_without_a_policy_everybody_may_everything() -> None:
    visitors = ClientTable(None)
    visitors.learn(LANES)
    anybody = visitors.of("anybody")
    assert anybody.lanes is LANES
    assert anybody.tasks(TASKS) == TASKS
    for kind in RequestKind:
        anybody.check_call(kind)
    anybody.admit(package(10**6), 0.0)
    anybody.admit(data_request("x", publishes=True), 0.0)


def test_what_is_not_allowed_has_no_lane() -> None:
    mine = visitor(tasks=("servo.*", "new*"), lanes=("arm", ""))
    assert mine.lanes.get("servo.set", "") == "arm"
    assert mine.lanes.get("task_count", "") == f"{DENIED_LANES}task_count"
    assert mine.lanes.get("unknown", "") == f"{DENIED_LANES}unknown"
    assert mine.lanes.get("new", "") == ""
    assert [task.name for task in mine.tasks(TASKS)] == ["servo.set"]


def test_a_lane_that_is_not_allowed_denies_its_tasks() -> None:
    assert visitor(tasks=("*",), lanes=("io",)).lanes.get("servo.set", "") == f"{DENIED_LANES}servo.set"


def test_it_is_told_of_topics_that_it_may_subscribe_to() -> None:
    mine = visitor(subscribe=("cpu.*",))
    assert [mine.may_subscribe(topic) for topic in ("cpu.load", "battery.volts")] == [True, False]
    assert ClientTable(None).of("anybody").may_subscribe("battery.volts")


def test_priorities_topics_and_calls() -> None:
    mine = visitor(publish=("drive.*",), subscribe=("cpu.*",), calls=("stats",))
    urgent = package(1)
    urgent.priority = Priority.URGENT
    with pytest.raises(NotAllowed, match="priority urgent"):
        mine.admit(urgent, 0.0)
    mine.admit(data_request("drive.left", publishes=True), 0.0)
    mine.admit(data_request("cpu.load", publishes=False), 0.0)
    for topic, publishes in (("cpu.load", True), ("drive.left", False)):
        with pytest.raises(NotAllowed, match=topic):
            mine.admit(data_request(topic, publishes=publishes), 0.0)
    for kind in RequestKind:
        if kind == RequestKind.RELOAD:
            with pytest.raises(NotAllowed, match="'laptop' ask for reload"):
                mine.check_call(kind)
        else:
            mine.check_call(kind)


def test_an_allowance_is_a_second_of_tasks_and_may_be_overdrawn() -> None:
    allowance = RateAllowance(Rates(10.0))
    for tasks in (4, 26):
        allowance.check(100.0)
        allowance.charge(tasks)
    with pytest.raises(Overloaded) as caught:
        allowance.check(100.0)
    assert caught.value.retry_after == pytest.approx(2.1)
    allowance.check(102.2)
    allowance.charge(3)
    with pytest.raises(Overloaded):
        allowance.check(102.2)
    allowance.check(200.0)


@pytest.mark.parametrize(
    ("entry", "seconds", "said", "wait"),
    [
        ({"rate": 2.0}, 0.0, "may send 2 tasks a second", 4.5),
        ({"rate_bytes": 10.0}, 0.0, "may send 10 bytes a second", 6.5),
        ({"rate_microseconds": 1000.0}, 0.006, "may send 1000 microseconds of the router's time a second", 5.001),
    ],
)
def test_tasks_bytes_and_the_routers_time_have_rates(
    entry: dict[str, float], seconds: float, said: str, wait: float
) -> None:
    mine = visitor(tasks=("*",), **entry)
    sent = package(10)
    sent.bytes = 74
    mine.admit(sent, 100.0)
    mine.charge(sent)
    mine.spend(seconds)
    with pytest.raises(Overloaded, match=said) as refused:
        mine.admit(sent, 100.0)
    assert refused.value.retry_after == pytest.approx(wait)
    mine.admit(sent, 100.001 + wait)


def test_of_several_rates_the_first_that_is_used_up_counts() -> None:
    mine = visitor(tasks=("*",), rate=100.0, rate_bytes=10.0)
    sent = package(1)
    sent.bytes = 11
    mine.admit(sent, 100.0)
    mine.charge(sent)
    mine.spend(1.0)
    with pytest.raises(Overloaded, match="10 bytes"):
        mine.admit(sent, 100.0)


def test_calls_that_the_policy_wants_noted() -> None:
    mine = visitor(tasks=("servo.*",), audit=("servo.*", "gpio.*"))
    sent = package(2)
    sent.kind = ("servo.set", "task_count", "gpio.write")
    sent.lanes = [("arm", 1), (f"{DENIED_LANES}gpio.write", 1)]
    assert mine.noted(sent) == ["servo.set"]
    assert visitor(tasks=("servo.*",)).noted(sent) == KnownClient("x", None, {}).noted(sent) == []


def test_what_the_broker_refuses_costs_no_allowance_and_a_reload_gives_none() -> None:
    visitors = ClientTable(Policy({"laptop": Entry(tasks=("*",), rate=10.0)}))
    visitors.learn(LANES)
    large = package(100)
    visitors.of("laptop").admit(large, 100.0)
    visitors.of("laptop").admit(large, 100.0)
    visitors.of("laptop").charge(large)
    visitors.learn(LANES)
    with pytest.raises(Overloaded):
        visitors.of("laptop").admit(package(1), 100.0)


def test_the_engines_own_client_is_under_no_policy_and_names_are_kept_within_bounds() -> None:
    visitors = ClientTable(Policy({}))
    visitors.learn(LANES)
    visitors.own.check_call(RequestKind.STATS)
    assert visitors.own.lanes is LANES
    for number in range(2 * CLIENTS_KEPT):
        visitors.of(str(number))
    assert len(visitors._known) == CLIENTS_KEPT
    assert visitors.of("x") is visitors.of("x")
    first = visitors.of("x")
    visitors.learn({})
    assert visitors.of("x") is not first


def test_another_policy_holds_at_once() -> None:
    visitors = ClientTable(Policy({"laptop": Entry(tasks=("servo.*",), rate=1.0)}))
    visitors.learn(LANES)
    before = visitors.of("laptop")
    before.charge(package(100))
    visitors.obey(Policy({"laptop": Entry(tasks=("gpio.*",), rate=50.0)}))
    mine = visitors.of("laptop")
    assert [task.name for task in mine.tasks(TASKS)] == ["gpio.write"]
    mine.admit(package(1), 0.0)


def test_what_is_urgent_by_what_it_calls_needs_no_right_to_a_priority_and_no_allowance() -> None:
    mine = visitor(tasks=("*",), rate=1.0)
    stop = package(1)
    stop.priority, stop.urgency = Priority.URGENT, Urgency(is_urgent=True, is_exempt=True)
    for _ in range(5):
        mine.admit(stop, 100.0)
        mine.charge(stop)
    mine.admit(package(1), 100.0)
    large = package(100)
    large.urgency = Urgency(is_urgent=True)
    mine.charge(large)
    with pytest.raises(Overloaded):
        mine.admit(package(1), 100.0)
    mine.admit(stop, 100.0)


def test_which_tasks_and_devices_are_a_clients() -> None:
    mine = visitor(tasks=("servo.*",), devices=("pan",))
    assert [name for name in [*LANES, "unknown"] if mine.may_call(name)] == ["servo.set"]
    assert mine.may_use("pan")
    assert not mine.may_use("tilt")
    visitors = ClientTable(None)
    visitors.learn(LANES)
    assert visitors.of("x").may_call("gpio.write")
    assert not visitors.of("x").may_call("unknown")
    assert visitors.of("x").may_use("tilt")
