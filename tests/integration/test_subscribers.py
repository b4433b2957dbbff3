"""Subscribers that read nothing, ask for all or ask for ever, and their effect on others where there are no keys."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec
import pytest
import zmq

from taskengine import Client, NotAllowed
from tests.engine import Engine, deadline, resident, wait_until
from tests.integration.seedclient import SeedClient, meta
from tests.integration.test_attacks import MIB

SOURCES = """
from taskengine import publish, source


@source("battery.volts", period=0.05)
def volts():
    return 12.5


def task_tell(topic, value):
    publish(topic, value)
"""


@pytest.fixture
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "battery.py").write_text(SOURCES)
    with Engine(cwd=folder, tasks="taskengine.tasks,battery.py", enable_stdout="false") as engine:
        yield engine


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


def connected(engine: Engine, context: zmq.Context[zmq.Socket[bytes]], kind: int, **options: int) -> zmq.Socket[bytes]:
    """A socket at the data port."""
    made: zmq.Socket[bytes] = context.socket(kind)
    made.linger, made.sndhwm, made.rcvhwm = 0, 0, 0
    for name, value in options.items():
        setattr(made, name, value)
    made.connect(f"tcp://127.0.0.1:{int(engine.settings['starting_port']) + 2}")
    return made


def test_a_subscriber_that_does_not_read_costs_little_and_others_nothing(
    engine: Engine, client: Client, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """A camera on bad Wi-Fi took 1 GB in the data worker."""
    [worker] = engine.pids("data")
    client.publish("camera", b"")
    with client.subscribe("camera") as feed, connected(engine, context, zmq.SUB, rcvhwm=1, rcvbuf=4096) as idle:
        idle.subscribe("camera")
        assert feed.get(deadline(20)).value == ""
        assert idle.poll(int(deadline(20) * 1000))
        before, peak = resident(worker), 0
        for number in range(300):
            client.publish("camera", [number, "x" * MIB])
            assert feed.get(deadline(20)).value[0] == number
            peak = max(peak, resident(worker))
        assert peak - before < 100 * MIB
        wait_until(lambda: "Cut off a subscriber that does not read" in engine.output(), 20, "its end")
    assert engine.pids("data") == [worker]


def test_subscriptions_of_a_connection_are_bounded_without_a_policy_too(
    engine: Engine, client: Client, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """15 MB that were sent took 743 MB."""
    [worker] = engine.pids("data")
    before = resident(worker)
    client.publish("x", 0)
    with client.subscribe("x") as feed, connected(engine, context, zmq.XSUB) as hostile:
        assert feed.get(deadline(20)).value == 0
        for _ in range(40_000):
            hostile.send(b"\x01" + os.urandom(200))
        wait_until(lambda: "subscriptions that a data worker keeps" in engine.output(), 20, "its end")
        client.publish("x", 1)
        assert feed.get(deadline(20)).value == 1
        wait_until(lambda: resident(worker) - before < 48 * MIB, 20, "the memory back")
    assert engine.pids("data") == [worker]


def test_last_values_go_to_who_asks_for_them(
    engine: Engine, client: Client, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """Subscribing and leaving off in turn made everybody else receive 388 MB/s."""
    value = "x" * MIB
    client.publish("map", value)
    with connected(engine, context, zmq.SUB) as honest, connected(engine, context, zmq.XSUB) as hostile:
        honest.subscribe("map")
        assert honest.poll(int(deadline(20) * 1000))
        honest.recv_multipart()
        for _ in range(100):
            hostile.send(b"\x01map")
            hostile.send(b"\0map")
        hostile.send(b"\x01map")
        assert hostile.poll(int(deadline(20) * 1000)), "it has its own"
        received = 0
        while honest.poll(500):
            honest.recv_multipart()
            received += 1
        # one a quarter of a second, at most, where it asks for more than it is given alone
        assert received <= 8


def test_who_joins_brings_nobody_a_last_value_again(
    engine: Engine, client: Client, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    client.publish("plan", 1)
    with connected(engine, context, zmq.SUB) as honest:
        honest.subscribe("plan")
        assert honest.poll(int(deadline(20) * 1000))
        honest.recv_multipart()
        for _ in range(10):
            with client.subscribe("plan") as feed:
                assert feed.get(deadline(20)).value == 1
        assert not honest.poll(300)


def test_a_late_subscriber_gets_the_last_value_of_each_topic(engine: Engine, client: Client) -> None:
    for number in range(200):
        client.publish(f"arm.{number}", number)
    with client.subscribe("arm.*") as feed:
        assert {feed.get(deadline(20)).topic for _ in range(200)} == {f"arm.{number}" for number in range(200)}


def test_who_says_what_is_no_subscription_is_cut_off_alone(
    engine: Engine, client: Client, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    with connected(engine, context, zmq.XSUB) as hostile:
        for attempt in range(3):
            hostile.send(b"\x02zz")
            for number in range(50):
                hostile.send(b"\x01zz%d" % number)
            with client.subscribe("mine") as feed:
                client.publish("mine", attempt)
                wait_until(lambda feed=feed, n=attempt: feed.get(deadline(20)).value == n, 20, "its own")  # type: ignore[misc]
        assert not hostile.poll(300)


def test_a_sources_topic_is_its_own_and_a_publication_names_its_publisher(engine: Engine, client: Client) -> None:
    client.publish("other", 1)
    client.call("task_tell", "told", 2)
    for topic, value, publisher in (
        ("battery.volts", 12.5, "source"),
        ("other", 1, "client"),
        ("told", 2, "task"),
    ):
        with client.subscribe(topic) as feed:
            sample = feed.get(deadline(20))
            assert (sample.value, sample.publisher) == (value, publisher)
    with pytest.raises(NotAllowed, match=r"topic battery\.volts is a source's"):
        client.publish("battery.volts", 3.3)
    with SeedClient(engine.address) as seed:
        data = msgspec.json.encode({"size": 1, "data": {"topic": "battery.volts", "value": 3.3}, "pack": 1.0})
        head, *_ = seed.ask(meta(type="PUB", length=1), data)
        assert "is a source's" in str(head.get("error"))
    assert client.latest("battery.volts") == 12.5
