from __future__ import annotations

import itertools
from collections.abc import Callable
from fnmatch import fnmatchcase

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.config.policy import Entry, Policy, Rates, Rights, may_call_any
from taskengine.protocol.messages import Priority
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
    assert (laptop.rates, tablet.rates, desk.rates) == (Rates(), Rates(10.0), Rates(4.0))
    both = Policy({"a": Entry(rate_bytes=9.0), "all": Entry(members=("*",), rate_bytes=8.0, rate_microseconds=7.0)})
    assert (both.rights("a").rates, both.rights("b").rates) == (Rates(bytes=8.0, microseconds=7.0),) * 2


GIVES = Entry(members=("*",), tasks=("*",), devices=("*",), publish=("*",), subscribe=("*",), audit=("servo.*",))
DENIES = Entry(
    deny_tasks=("system.*", "servo.off"),
    deny_devices=("leg*",),
    deny_publish=("hardware.*",),
    deny_subscribe=("cam.*",),
)


@pytest.mark.parametrize("table", [{"a": DENIES, "b": GIVES}, {"b": GIVES, "a": DENIES}])
def test_what_one_entry_denies_no_other_gives(table: dict[str, Entry]) -> None:
    mine, others = Policy(table).rights("a"), Policy(table).rights("other")
    rows = (
        (Rights.may_call, ("system.arm", "x"), ("servo.set", "x")),
        (Rights.may_call, ("servo.off", "x"), ("servo.offset", "x")),
        (Rights.may_use, ("leg2",), ("arm",)),
        (Rights.may_publish, ("hardware.pan",), ("drive",)),
        (Rights.may_subscribe, ("cam.front",), ("cpu",)),
        (Rights.may_subscribe, ("cam.",), ("camera",)),
        (Rights.may_subscribe, ("ca",), ("cb",)),
        (Rights.may_subscribe, ("",), ("drive",)),
    )
    for may, denied, allowed in rows:
        assert not may(mine, *denied), "nor what would bring along what is denied"
        assert may(mine, *allowed)
        assert may(others, *denied)
    assert [mine.is_noted(task) for task in ("servo.set", "task_echo")] == [True, False]


@given(st.sampled_from(["a.*", "*", "ab*"]), st.text(alphabet="ab.", max_size=4), st.text(alphabet="ab.", max_size=4))
def test_no_subscription_brings_a_topic_that_is_denied(denied: str, prefix: str, rest: str) -> None:
    rights = Policy({"c": Entry(subscribe=("*",), deny_subscribe=(denied,))}).rights("c")
    if rights.may_subscribe(prefix):
        assert not fnmatchcase(prefix + rest, denied)


def test_why_something_is_allowed_or_not() -> None:
    policy = Policy({**TABLE, "brake": Entry(members=("laptop",), deny_tasks=("servo.m*",), deny_devices=("tilt3",))})
    rows = (
        (("laptop", "servo.set", "arm", "pan"), True, '[policy.laptop] has "servo.*" in tasks', '"pan" in devices'),
        (
            ("laptop", "servo.set", "arm", "tilt3"),
            False,
            '"servo.*" in tasks',
            '[policy.brake] has "tilt3" in deny_devices',
        ),
        (("laptop", "servo.move", "arm", None), False, '[policy.brake] has "servo.m*" in deny_tasks'),
        (
            ("laptop", "gpio.write", "io", None),
            False,
            "may not call gpio.write: none of [policy.laptop], [policy.everyone], [policy.operators]",
        ),
        (("tablet", "gpio.write", "io", None), False, '[policy.tablet] not in lane "io"'),
        (("desk-1", "task_echo", "", "pan"), False, '[policy.everyone] has "task_echo"', "may not use pan: none of"),
    )
    for asked, is_allowed, *said in rows:
        answer = policy.explain(*asked)
        assert answer.is_allowed == is_allowed, asked
        assert len(answer.why) == len(said)
        for text, why in zip(said, answer.why, strict=True):
            assert text in why
    assert Policy({}).explain("x", "y", "") == (False, ["no entry of the policy applies to x"])


@given(st.sampled_from(CLIENTS), st.sampled_from(list(TASKS)), st.sampled_from(DEVICES))
def test_the_explanation_says_what_the_rights_say(client: str, task: str, device: str) -> None:
    policy = Policy({**TABLE, "brake": Entry(members=("*",), deny_tasks=("servo.m*",), deny_devices=("l*",))})
    rights = policy.rights(client)
    may = rights.may_call(task, TASKS[task])
    assert policy.explain(client, task, TASKS[task]).is_allowed == may
    assert policy.explain(client, task, TASKS[task], device).is_allowed == (may and rights.may_use(device))


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


def test_what_denies_a_subscription_is_a_prefix_too() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"deny_subscribe: 'cam': .*ends in its only"):
        msgspec.convert({"deny_subscribe": ["cam"]}, Entry)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_bytes": 0},
        {"rate_microseconds": -1},
        {"rate": 0},
        {"rate": float("nan")},
        {"task": ["x"]},
        {"priorities": ["soon"]},
    ],
)
def test_wrong_entries_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Entry)


def test_a_group_that_is_empty_is_nobodys() -> None:
    assert not Policy({"everyone": Entry(members=(), tasks=("*",))}).rights("everyone").may_call("x", "")


def test_who_may_call_one_of_several_tasks() -> None:
    stops = {"system.stop": "hardware", "legs.system.stop": "legs"}
    entries = {
        "anna": Entry(tasks=("legs.system.stop",)),
        "otto": Entry(tasks=("*",), lanes=("arm",)),
        "eve": Entry(tasks=("*",)),
        "ada": Entry(tasks=("*",), deny_tasks=("*.stop",)),
    }
    policy = Policy(entries)
    assert [name for name in (*entries, "nobody") if may_call_any(policy, name, stops)] == ["anna", "eve"]
    assert may_call_any(None, "nobody", stops)
