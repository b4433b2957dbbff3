"""Rights of clients at a running engine, and how soon they end when a key is revoked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from taskengine import Client, NotAllowed, Overloaded, TaskEngineError, TaskFailed, TaskTimeout, UnknownTask
from taskengine.client.calls import Call
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, wait_until

MODULE = """
import time
from taskengine import caller, check_device, source, task

@task(name="servo.set", lane="arm")
def servo_set(device):
    check_device(device)
    return f"{caller()} {device}"

@task(name="gpio.write", lane="io")
def gpio_write(device):
    check_device(device)
    return f"{caller()} {device}"

@task
def who():
    return caller()

@task
def doze(seconds):
    time.sleep(seconds)
    return seconds

@source("drive.slow", period=0.01)
def drive_slow():
    time.sleep(0.1)

@source("other.slow", period=0.01)
def other_slow():
    time.sleep(0.1)
"""
POLICY = """
[policy.laptop]
tasks = ["servo.*", "who", "doze"]
devices = ["pan", "tilt*"]
publish = ["drive.*"]

[policy.tablet]
tasks = ["*"]
lanes = ["io", ""]
devices = ["lamp"]
publish = ["*"]
subscribe = ["drive.*"]
priorities = ["normal", "urgent"]
calls = ["stats", "reload"]

[policy.slow]
tasks = ["who"]
rate_microseconds = 0.001
audit = ["*"]

[policy.toys]
members = ["toy-*"]
tasks = ["who"]
rate = 50
"""
CLIENTS = ["laptop", "tablet", "toy-1", "stranger"]
TASKS = {"servo.set": "arm", "gpio.write": "io"}
DEVICES = ["pan", "tilt2", "lamp", "motor"]
TOPICS = ["drive.left", "drive", "other"]
CALLS_OF = {"laptop": {"servo.set"}, "tablet": {"gpio.write"}}
DEVICES_OF = {"laptop": {"pan", "tilt2"}, "tablet": {"lamp"}}
PUBLISH_OF = {"laptop": {"drive.left"}, "tablet": set(TOPICS)}
READ_OF = {"tablet": {"drive.left"}}


class Ruled(NamedTuple):
    """A running engine under a policy, and its keys."""

    engine: Engine
    ring: KeyRing
    folder: Path

    def client(self, name: str, **options: Any) -> Client:
        """A client that has a key of its own."""
        folder = self.folder / name
        if not folder.exists():
            KeyRing(folder).accept(self.ring.pair(name, self.engine.address))
        return Client(self.engine.address, name="liar", keys=folder, **{"timeout": deadline(20)} | options)

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log."""
        return [json.loads(line) for line in (self.ring.folder / "audit.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ruled]:
    folder = tmp_path_factory.mktemp("ruled")
    (folder / "robot.py").write_text(MODULE)
    (folder / "taskengine.toml").write_text(POLICY)
    settings: dict[str, Any] = {"tasks": f"{folder / 'robot.py'},taskengine.tasks", "keys": folder / "keys"}
    with Engine(cwd=folder, **settings) as engine:
        yield Ruled(engine, KeyRing(folder / "keys"), folder)


def is_allowed(act: Callable[[], object]) -> bool:
    """Whether it does not end in NotAllowed; there may be no value on a topic yet."""
    try:
        act()
    except NotAllowed:
        return False
    except TaskFailed as error:
        return "nothing was published" in str(error)
    return True


def test_sources_are_told_of_to_who_may_subscribe_to_them(ruled: Ruled) -> None:
    with ruled.client("tablet") as tablet:
        wait_until(lambda: "Source other.slow overruns" in ruled.engine.output(), 20, "one that it may not know of")
        wait_until(lambda: tablet.stats().sources, 20, "the other one")
        assert {source.topic for source in tablet.stats().sources} == {"drive.slow"}


@pytest.mark.parametrize("name", CLIENTS)
def test_every_task_device_and_topic(ruled: Ruled, name: str) -> None:
    with ruled.client(name) as client:
        for task in TASKS:
            results = client.options(errors="return").map(task, DEVICES)
            expected = [
                f"{name} {device}"
                if task in CALLS_OF.get(name, set()) and device in DEVICES_OF.get(name, set())
                else NotAllowed
                for device in DEVICES
            ]
            assert [type(r) if isinstance(r, TaskEngineError) else r for r in results] == expected
        publishes = {topic for topic in TOPICS if is_allowed(lambda topic=topic: client.publish(topic, 1))}  # type: ignore[misc]
        assert publishes == PUBLISH_OF.get(name, set())
        reads = {topic for topic in TOPICS if is_allowed(lambda topic=topic: client.latest(topic))}  # type: ignore[misc]
        assert reads == READ_OF.get(name, set())
        assert is_allowed(client.stats) == (name == "tablet")
        assert is_allowed(lambda: client.options(priority="urgent").call("who")) == (name == "tablet")
        known = {"laptop": {"servo.set", "who", "doze"}, "toy-1": {"who"}, "stranger": set[str]()}
        told = {info.name for info in client.tasks()}
        assert told == known[name] if name in known else "gpio.write" in told and "servo.set" not in told


def test_what_is_not_allowed_costs_its_neighbours_nothing(ruled: Ruled) -> None:
    with ruled.client("laptop") as client:
        calls: list[Call] = [
            ("who", (), {}),
            ("gpio.write", ("pan",), {}),
            ("servo.set", ("pan",), {}),
            ("nothing", (), {}),
        ] * 100
        results = client.run(calls)
        assert [type(result) for result in results] == [str, NotAllowed, str, NotAllowed] * 100
        assert results[0] == "laptop"
        assert "gpio.write" in str(results[1])
    with ruled.client("tablet") as client, pytest.raises(UnknownTask):
        client.call("nothing")


def test_a_rate_is_kept(ruled: Ruled) -> None:
    with ruled.client("toy-2") as toy:
        assert toy.run([("who", (), {})] * 200) == ["toy-2"] * 200
        with pytest.raises(Overloaded, match="50 tasks a second") as caught:
            toy.call("who")
        assert 1.0 < caught.value.retry_after < 5.0


def test_nobody_hears_more_than_it_may(ruled: Ruled) -> None:
    with (
        ruled.client("tablet") as tablet,
        ruled.client("laptop") as laptop,
        tablet.subscribe("drive.*") as drive,
        tablet.subscribe("*") as everything,
        laptop.subscribe("drive.left") as none,
        tablet.subscribe("drive.*", binary=True) as as_it_is,
        tablet.subscribe("*", binary=True) as all_as_they_are,
        laptop.subscribe("drive.left", binary=True) as none_as_it_is,
    ):
        for number in range(20):
            laptop.publish("drive.left", number)
            tablet.publish("other", number)
            time.sleep(0.005)
        assert drive.get(deadline(20)).topic == as_it_is.get(deadline(20)).topic == "drive.left"
        for feed in (everything, none, all_as_they_are, none_as_it_is):
            with pytest.raises(TaskTimeout):
                feed.get(0.3)


def test_a_revoked_client_is_cut_off_within_a_second(ruled: Ruled) -> None:
    with ruled.client("tablet") as tablet, ruled.client("laptop") as other, tablet.subscribe("drive.cut*") as feed:
        waiting = [tablet.submit("doze", 0.2) for _ in range(20)]
        tablet.flush()
        other.publish("drive.cut", 1)
        assert feed.get(deadline(20)).value == 1
        ruled.ring.revoke("tablet")
        revoked = time.monotonic()
        while is_allowed(tablet.info):
            assert time.monotonic() - revoked < deadline(1.0), "it still may"
        time.sleep(deadline(1.0))
        while True:
            try:
                feed.get(0.1)  # what was on its way
            except TaskTimeout:
                break
        for number in range(50):
            other.publish("drive.cut", number)
        with pytest.raises(TaskTimeout):
            feed.get(0.5)
        wait_until(lambda: other.call("who") == "laptop", 20, "an answer to another")
        assert not (waiting[-1].done() and waiting[-1].exception() is None)
        tablet.close(0.0)
    (ruled.folder / "tablet").rename(ruled.folder / "tablet-gone")
    with ruled.client("tablet") as again:
        assert again.call("who") == "tablet"
        wait_until(lambda: again.stats().in_flight == 0, 20, "the end of what was cancelled")
    with (
        Client(ruled.engine.address, keys=ruled.folder / "tablet-gone", timeout=deadline(20)) as old,
        pytest.raises(NotAllowed),
    ):
        old.call("who")


def test_the_time_of_the_router_has_a_rate_and_calls_may_be_noted(ruled: Ruled) -> None:
    with ruled.client("slow") as client:
        assert client.call("who") == "slow"
        with pytest.raises(Overloaded, match="microseconds of the router's time a second"):
            client.call("who")
    called = [line for line in ruled.audit() if line["event"] == "called" and line["client"] == "slow"]
    assert [(line["tasks"], line["count"]) for line in called] == [(["who"], 1)]


def test_refusals_changes_of_keys_and_privileged_calls_are_in_the_audit_log(ruled: Ruled) -> None:
    with ruled.client("stranger") as stranger, ruled.client("tablet") as tablet:
        assert not is_allowed(lambda: stranger.call("gpio.write", "pan"))
        assert not is_allowed(stranger.reload)
        tablet.reload()
    ruled.ring.pair("guest", ruled.engine.address)
    ruled.ring.revoke("guest")

    def events() -> set[tuple[str, str, str]]:
        lines = ruled.audit()
        return {(line["event"], line.get("client", ""), str(line.get("call") or line.get("tasks"))) for line in lines}

    expected = {
        ("refused", "stranger", "['gpio.write']"),
        ("refused", "stranger", "RELOAD"),
        ("called", "tablet", "RELOAD"),
    }
    wait_until(lambda: events() >= expected, 20, "the lines")
    assert any(line["event"] == "key allowed" and line["client"] == "toy-2" for line in ruled.audit())
