from __future__ import annotations

import itertools
from collections.abc import Callable
from fnmatch import fnmatchcase

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.messages import Priority
from taskengine.policy import Entry, Policy
from tests.summary import RIGHTS

TABLE = {
    "laptop": Entry(tasks=("servo.*", "task_count"), devices=("pan", "tilt*"), publish=("drive.*",)),
    "tablet": Entry(tasks=("*",), lanes=("arm",), devices=("*",), subscribe=("hardware.*", "cpu*")),
    "everyone": Entry(members=("*",), tasks=("task_echo",), subscribe=("news.*",)),
    "operators": Entry(members=("laptop", "desk-*"), devices=("lamp",), priorities=("urgent",), calls=("reload",)),
    "slow": Entry(members=("tablet", "desk-2"), rate=10.0),
    "slower": Entry(members=("desk-*",), rate=4.0),
}
CLIENTS = ["laptop", "tablet", "desk-1", "desk-2", "stranger", "everyone", "operators", "Laptop", ""]
TASKS = {"servo.set": "arm", "servo.move": "arm", "task_count": "", "task_echo": "", "gpio.write": "io"}
DEVICES = ["pan", "tilt", "tilt2", "lamp", "motor", "Pan"]
TOPICS = ["drive.left", "drive", "hardware.pan", "hardware", "cpu", "cpu.load", "news.1", "news", ""]


def expected_calls(client: str) -> set[str]:
    mine = {"task_echo"}
    if client == "laptop":
        mine |= {"servo.set", "servo.move", "task_count"}
    if client == "tablet":
        mine |= {"servo.set", "servo.move"}
    return mine


DEVICES_OF = {
    "laptop": {"pan", "tilt", "tilt2", "lamp"},
    "tablet": set(DEVICES),
    "desk-1": {"lamp"},
    "desk-2": {"lamp"},
}
PUBLISH_OF = {"laptop": {"drive.left"}}
SUBSCRIBE_OF = {"tablet": {"hardware.pan", "cpu", "cpu.load", "news.1"}}


def test_every_client_task_device_and_topic(record_property: Callable[[str, object], None]) -> None:
    allowed = false_allows = 0
    for client, task, device, topic in itertools.product(CLIENTS, TASKS, DEVICES, TOPICS):
        rights = Policy(TABLE).rights(client)
        found = (
            rights.may_call(task, TASKS[task]),
            rights.may_use(device),
            rights.may_publish(topic),
            rights.may_subscribe(topic),
        )
        expected = (
            task in expected_calls(client),
            device in DEVICES_OF.get(client, set()),
            topic in PUBLISH_OF.get(client, set()),
            topic in SUBSCRIBE_OF.get(client, {"news.1"}),
        )
        allowed += sum(expected)
        false_allows += sum(may and not should for may, should in zip(found, expected, strict=True))
        assert found == expected, (client, task, device, topic)
    asked = 4 * len(CLIENTS) * len(TASKS) * len(DEVICES) * len(TOPICS)
    record_property(RIGHTS, f"{allowed} of {asked} rights were given, {false_allows} of them falsely")
    assert allowed
    assert not false_allows


def test_priorities_calls_and_rates() -> None:
    laptop, tablet, desk = (Policy(TABLE).rights(name) for name in ("laptop", "tablet", "desk-2"))
    assert all(map(laptop.may_prioritise, Priority))
    assert [priority for priority in Priority if tablet.may_prioritise(priority)] == [0, 1, 2]
    assert laptop.may_ask("reload")
    assert not laptop.may_ask("stats")
    assert not tablet.may_ask("reload")
    assert (laptop.rate, tablet.rate, desk.rate) == (float("inf"), 10.0, 4.0)


@given(st.text(), st.text(), st.text())
def test_who_is_not_named_may_nothing(client: str, name: str, lane: str) -> None:
    rights = Policy({"a": Entry(tasks=("*",)), "b": Entry(members=("a",), devices=("*",))}).rights("not " + client)
    assert not rights.may_call(name, lane)
    assert not any((rights.may_use(name), rights.may_publish(name), rights.may_subscribe(name)))
    assert not rights.may_prioritise(Priority.URGENT)
    assert not rights.may_ask("reload")


@given(st.text(), st.text(alphabet="ab.*", max_size=6))
def test_whoever_may_subscribe_may_see_all_that_begins_so(rest: str, prefix: str) -> None:
    for pattern in ("a.*", "*", "ab*"):
        if Policy({"c": Entry(subscribe=(pattern,))}).rights("c").may_subscribe(prefix):
            assert fnmatchcase(prefix + rest, pattern)


@pytest.mark.parametrize("pattern", ["a", "*a", "a**", "a?*", "[a]*", ""])
def test_a_subscription_is_a_prefix(pattern: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="ends in its only"):
        msgspec.convert({"subscribe": [pattern]}, Entry)


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": float("nan")}, {"task": ["x"]}, {"priorities": ["soon"]}])
def test_wrong_entries_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Entry)


def test_a_group_that_is_empty_is_nobodys() -> None:
    assert not Policy({"everyone": Entry(members=(), tasks=("*",))}).rights("everyone").may_call("x", "")
