from __future__ import annotations

import time
from collections.abc import Iterator

import numpy
import pytest

from taskengine import BadArguments, Overloaded, ProtocolError, publish
from taskengine.broker.topics import owner
from taskengine.protocol.limits import FEED_BYTES, MAX_TOPIC
from taskengine.runtime import feed
from taskengine.runtime.feed import PublicationPipe


@pytest.fixture
def feeds() -> Iterator[list[PublicationPipe]]:
    made = [feed.new_feed() for _ in range(2)]
    feed.attach(made)
    yield made
    feed.attach(())
    for one in made:
        one.write_end.close()
        one.read_end.close()


def test_a_publication_goes_to_the_data_worker_that_owns_the_topic(feeds: list[PublicationPipe]) -> None:
    topics = [f"hardware.{name}" for name in ("pan", "tilt", "lamp", "button", "load", "wheel")]
    assert {owner(topic, 2) for topic in topics} == {0, 1}
    for topic in topics:
        publish(topic, {"time": 1.5, "value": topic})
    for number, one in enumerate(feeds):
        for topic in topics:
            if owner(topic, 2) == number:
                found = feed.receive(one.read_end)
                assert found is not None
                assert found[:2] == (topic, {"time": 1.5, "value": topic})
        assert feed.receive(one.read_end) is None


def test_an_array_arrives_as_one(feeds: list[PublicationPipe]) -> None:
    rows = numpy.arange(100.0).reshape(50, 2)
    publish("volts", rows)
    found = feed.receive(feeds[owner("volts", 2)].read_end)
    while found is not None and found[0] != "volts":  # a sensor that hung in another test tells now what it has read
        found = feed.receive(feeds[owner("volts", 2)].read_end)
    assert found is not None
    assert (found[1] == rows).all()


def test_who_takes_nothing_is_not_waited_for(feeds: list[PublicationPipe]) -> None:
    def publish_many() -> None:
        for _ in range(10_000):
            publish("pan", "x" * 1000)

    with pytest.raises(Overloaded, match="has not taken"):
        publish_many()


@pytest.mark.parametrize("topic", ["", 5, None, "x" * (MAX_TOPIC + 1), "é" * MAX_TOPIC])
def test_what_is_no_topic(feeds: list[PublicationPipe], topic: object) -> None:
    with pytest.raises(BadArguments, match="a topic is text"):
        publish(topic, 1)  # type: ignore[arg-type]  # that is the test


def test_what_cannot_be_sent(feeds: list[PublicationPipe]) -> None:
    with pytest.raises(BadArguments):
        publish("pan", object())
    with pytest.raises(BadArguments, match="at most about"):
        publish("pan", b"x" * (4 * FEED_BYTES))


def test_an_engine_without_data_workers_publishes_nothing() -> None:
    feed.attach(())
    with pytest.raises(Overloaded, match="DATA_WORKERS is 0"):
        publish("pan", 1)


def test_a_publication_says_when_it_was_made(feeds: list[PublicationPipe]) -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    publish("pan", 1)
    found = feed.receive(feeds[owner("pan", 2)].read_end)
    assert found is not None
    assert before <= found[2] <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("message", [b"\x01", b"\x92\x01\x02", b"\x93\x01\x02\xc0", b"\xc1", b"\x92\xa3pan"])
def test_what_is_no_publication(feeds: list[PublicationPipe], message: bytes) -> None:
    feeds[0].write_end.send(message)
    with pytest.raises(ProtocolError):
        feed.receive(feeds[0].read_end)


def test_only_the_owners_of_pins_tell_what_those_do(feeds: list[PublicationPipe]) -> None:
    feed.attach(feeds, has_machine=True)
    with pytest.raises(BadArguments, match="the engine's own"):
        publish("hardware.pan", 1)
    feed.publish_owned("hardware.pan", 1)
    publish("hardwareless", 1)
    feed.attach(feeds)
    publish("hardware.pan", 1)
