"""Subscribers that are slower than what they read, sources that are slower than their period, ages of samples."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import numpy
import pytest
import zmq

from taskengine import BadArguments, Cancelled, Client, ProtocolError, TaskTimeout, aio
from taskengine.client.subscription import Subscription, Wish
from tests.engine import Engine, deadline, wait_until

SOURCES = """
import threading, time
from taskengine import publish, source

@source("fast", period=0.01)
def fast():
    return time.time()

@source("slow", period=0.1)
def slow():
    time.sleep(0.4)
    return threading.current_thread().name

@source("hung", period=0.1)
def hung():
    time.sleep(3600)

@source("camera", period=0.05)
def camera():
    return bytes(range(256)) * 200

def task_tell(topic, number):
    for value in range(number):
        publish(topic, value)
        time.sleep(0.001)
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "sampled.py").write_text(SOURCES)
    with Engine(cwd=folder, tasks="taskengine.tasks,sampled.py") as engine:
        yield engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client(engine.address, timeout=deadline(20)) as client:
        yield client


def test_a_slow_source_holds_up_no_other_and_is_named(engine: Engine, client: Client) -> None:
    """1.5 s beside 100 Hz left 201 of 801 samples; one that never returns left none."""
    with client.subscribe("fast") as feed:
        first = feed.get(deadline(20))
        begun = time.monotonic()
        while time.monotonic() - begun < 1.0:
            last = feed.get(deadline(20))
    published = last.number - first.number
    assert published >= 0.4 * (last.time - first.time) / 0.01
    with client.subscribe("slow") as feed:
        assert feed.get(deadline(20)).value == "source slow"
    wait_until(lambda: {each.topic for each in client.stats().sources} == {"slow", "hung"}, 20, "their names")
    slow = next(each for each in client.stats().sources if each.topic == "slow")
    assert slow.period == 0.1
    assert slow.longest >= 0.4
    for name in ("slow", "hung"):
        assert engine.output().count(f"Source {name} overruns: it takes") == 1


def test_another_router_is_told_too(engine: Engine, client: Client) -> None:
    [router] = engine.pids("router")
    os.kill(router, signal.SIGKILL)
    wait_until(lambda: engine.pids("router") not in ([router], []), 20, "another router")
    wait_until(lambda: {each.topic for each in client.stats().sources} == {"slow", "hung"}, 20, "their names")


def has_dropped(feed: Subscription, number: int) -> bool:
    return feed.dropped >= number


def test_a_slow_subscriber_is_given_the_newest(client: Client) -> None:
    """At a tenth of the rate it was 10.8 s behind after 12 s."""
    with client.subscribe("fast", newest=True) as feed:
        seen = [feed.get(deadline(20))]
        for _ in range(5):
            taken, wanted = time.time(), feed.dropped + 5
            wait_until(partial(has_dropped, feed, wanted), 20, "newer ones")
            seen.append(feed.get(deadline(20)))
            assert seen[-1].time > taken
            assert seen[-1].age is not None
            assert seen[-1].age < deadline(2)
        given = seen[-1].number - seen[0].number + 1
        assert given >= 6 + 25
        assert feed.dropped >= given - len(seen)


def test_what_waits_is_bounded_and_what_gave_way_is_counted(client: Client) -> None:
    with client.subscribe("counted", waiting=10) as feed:
        client.publish("counted", "ready")
        assert feed.get(deadline(20)).value == "ready"
        client.call("task_tell", "counted", 500)
        # a client's publication comes by another way, and may overtake a task's
        wait_until(lambda: feed.dropped >= 490, 20, "all that the task has told")
        client.publish("counted", "end")
        wait_until(lambda: feed.dropped >= 491, 20, "all of them")
        values = [feed.get(deadline(20)).value for _ in range(10)]
    assert values == [*range(491, 500), "end"]
    assert feed.dropped == 491


def test_a_sample_is_as_old_as_it_is(client: Client) -> None:
    client.publish("old", 1)
    client.call("task_tell", "told", 1)
    time.sleep(0.3)
    for topic in ("old", "told"):
        with client.subscribe(topic) as feed:
            age = feed.get(deadline(20)).age
        assert age is not None
        assert 0.3 <= age < deadline(20)


def test_a_subscription_that_is_closed_ends_who_waits(client: Client) -> None:
    feed = client.subscribe("never")
    with pytest.raises(TaskTimeout, match="nothing was published"):
        feed.get(timeout=0.01)
    closing = threading.Timer(0.1, feed.close)
    closing.start()
    with pytest.raises(Cancelled, match="is closed"):
        feed.get(deadline(20))
    closing.join()
    feed.close()
    with pytest.raises(Cancelled, match="is closed"):
        feed.get()


def test_a_subscription_that_nobody_has_ends_its_thread(client: Client) -> None:
    client.subscribe("never")
    wait_until(lambda: "taskengine-subscription" not in {t.name for t in threading.enumerate()}, 20, "its end")


def test_a_forked_child_leaves_its_parents_subscription_alone(client: Client) -> None:
    with client.subscribe("fast") as feed:
        feed.get(deadline(20))
        pid = os.fork()
        if not pid:
            try:
                feed.close()
                feed.get()
            except Cancelled:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        number = feed.get(deadline(20)).number
        wait_until(lambda: feed.get(deadline(20)).number > number + 5, 20, "samples that go on")


@pytest.mark.parametrize("options", [{"waiting": 0}, {"waiting": True}, {"waiting": 1.5}, {"newest": 1}])
def test_what_is_no_wish(client: Client, options: dict[str, Any]) -> None:
    with pytest.raises(BadArguments, match=next(iter(options))):
        client.subscribe("x", **options)


def test_it_is_the_same_for_asyncio(engine: Engine) -> None:
    async def script() -> None:
        async with aio.Client(engine.address, timeout=deadline(20)) as client:
            async with client.subscribe("fast", newest=True) as feed:
                first = await feed.get()
                assert first.age is not None
                while feed.dropped <= 5:  # the limit is that of the whole script
                    await asyncio.sleep(0.01)
                assert (await feed.get()).number > first.number + 5
                assert feed.dropped > 5
            feed = client.subscribe("counted.aio", waiting=5)
            assert feed.dropped == 0
            await client.publish("counted.aio", 0)
            assert (await feed.get()).value == 0
            # a wait that is given up loses nothing
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await feed.get()
            await client.publish("counted.aio", 1)
            async for sample in feed:
                assert sample.value == 1
                break
            await feed.aclose()
            await feed.aclose()
            with pytest.raises(Cancelled, match="is closed"):
                await feed.get()

    asyncio.run(asyncio.wait_for(script(), deadline(40)))


def test_bytes_and_arrays_come_as_they_are_to_who_wants_that(engine: Engine, client: Client) -> None:
    with client.subscribe("camera", binary=True) as feed:
        samples = [feed.get(deadline(20)) for _ in range(3)]
    assert {sample.value for sample in samples} == {bytes(range(256)) * 200}
    assert {sample.publisher for sample in samples} == {"source"}
    assert samples[0].clock < samples[1].clock
    assert samples[-1].number - samples[0].number == 2
    client.publish("depth", numpy.arange(6, dtype="u2").reshape(2, 3))
    with client.subscribe("dep*", binary=True) as feed:
        found = feed.get(deadline(20)).value
        assert (found.dtype, found.tolist()) == ("uint16", [[0, 1, 2], [3, 4, 5]])
    with client.subscribe("depth") as feed:
        assert feed.get(deadline(20)).value == [[0, 1, 2], [3, 4, 5]]


def test_an_older_subscriber_to_all_gets_json_alone(engine: Engine, client: Client) -> None:
    """It wants every first frame, and knows only those that are text."""
    with zmq.Context() as context, context.socket(zmq.SUB) as everything, client.subscribe("*", binary=True) as feed:
        everything.linger = 0
        everything.subscribe(b"")
        everything.connect(f"tcp://127.0.0.1:{int(engine.settings['starting_port']) + 2}")
        topics: set[str] = set()
        while topics < {"fast", "camera"}:
            assert everything.poll(int(deadline(20) * 1000))
            topic, meta, data = everything.recv_multipart()
            topics.add(topic.decode())
            assert json.loads(meta)["serial"] == topic.decode()
            assert json.loads(data)["size"] == 1
        assert {feed.get(deadline(20)).topic for _ in range(50)} >= {"fast", "camera"}
        # a second subscription to topics that this one has already ends without it
        everything.subscribe(b"f")
        everything.unsubscribe(b"f")
        wait_until(lambda: everything.recv_multipart()[0] == b"camera", 20, "publications after that")
        wait_until(lambda: everything.recv_multipart()[0] == b"fast", 20, "what both were to")
        everything.unsubscribe(b"")
        wait_until(lambda: not drained(everything), 20, "the end of the subscription")


def drained(socket: zmq.Socket[bytes]) -> int:
    """Read what is there, and return how many messages come within 200 ms."""
    while socket.poll(0):
        socket.recv_multipart()
    return int(bool(socket.poll(200)))


def test_binary_values_of_an_older_engine_are_refused(engine: Engine, client: Client) -> None:
    info = msgspec.structs.replace(client.info(), capabilities=["clock"], release="")
    with pytest.raises(ProtocolError, match="publishes values in JSON alone"):
        Wish("x", binary=True).addresses(info, engine.address)
    with pytest.raises(BadArguments, match="binary is True or False"):
        client.subscribe("x", binary="yes")  # type: ignore[arg-type]


def test_a_topic_without_a_name_is_refused(client: Client) -> None:
    """No subscription would match it."""
    with pytest.raises(BadArguments, match="at least one byte"):
        client.publish("", 1)
