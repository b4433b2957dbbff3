"""A subscriber's handling of publications."""

from __future__ import annotations

import pytest

from taskengine.broker.topics import TopicTable
from taskengine.client.clock import Estimate
from taskengine.client.samples import ASK_NS, NS, WAITING_BYTES, Ages, Backlog, Publication, SubscriptionFilter
from taskengine.errors import ProtocolError

BOOT = 7


class Stream:
    """A data worker, a feed and a backlog, with the network between left out."""

    def __init__(self, topic: str = "*", most: int = 100, *, newest: bool = False) -> None:
        self.board = TopicTable("DATA-1", BOOT)
        self.feed = SubscriptionFilter(topic)
        self.backlog = Backlog(most, newest=newest)

    def publish(self, topic: str, value: object, *, lost: bool = False) -> None:
        frames = self.board.publish(topic, value, now=0.0)
        if not lost:
            publication = self.feed.read(frames)
            if publication is not None:
                self.backlog.add(publication)

    def values(self) -> list[object]:
        found: list[object] = []
        while (publication := self.backlog.take()) is not None:
            found.append(publication.sample().value)
        return found


def published(clock: int, boot: int = BOOT) -> Publication:
    publication = SubscriptionFilter("x").read(TopicTable("DATA-1", boot).publish("x", 1, now=0.0, clock=clock))
    assert publication is not None
    return publication


def test_a_backlog_gives_what_came_in_order() -> None:
    stream = Stream()
    for number in range(5):
        stream.publish(f"t{number % 2}", number)
    assert stream.values() == [0, 1, 2, 3, 4]
    assert (stream.backlog.dropped, stream.feed.missed) == (0, 0)


def test_a_full_backlog_gives_up_the_oldest_and_counts_it() -> None:
    stream = Stream(most=3)
    for number in range(10):
        stream.publish("x", number)
    assert stream.values() == [7, 8, 9]
    assert stream.backlog.dropped == 7


def test_the_bytes_that_wait_are_bounded_and_one_may_be_larger() -> None:
    stream = Stream()
    third = "x" * (WAITING_BYTES // 3)
    for number in range(6):
        stream.publish("x", third + str(number))
    assert [str(value)[-1] for value in stream.values()] == ["4", "5"]
    assert stream.backlog.dropped == 4
    stream.backlog.add(Publication("x", published(0).meta, b" " * (WAITING_BYTES + 1)))
    assert len(stream.backlog) == 1


def test_only_the_newest_of_each_topic_is_kept_in_the_place_of_the_one_before() -> None:
    stream = Stream(newest=True, most=1)
    for number in range(5):
        stream.publish("fast", number)
        if number == 1:
            stream.publish("slow", "s")
    assert stream.values() == [4, "s"]
    stream.publish("fast", 5)
    assert stream.values() == [5]
    assert stream.backlog.dropped == 4


def test_what_never_came_is_counted_too() -> None:
    stream = Stream()
    for number in range(10):
        stream.publish("x", number, lost=number in (0, 4, 5))
    stream.publish("y", 0, lost=True)
    stream.publish("y", 1)
    assert stream.feed.missed == 2, "before the first that came, nothing was missed"
    stream.board = TopicTable("DATA-2", BOOT)
    for number in range(3):
        stream.publish("x", number, lost=number < 2)
    assert stream.feed.missed == 2, "another data worker counts anew"


def test_a_repeated_publication_pushes_nothing_out() -> None:
    stream = Stream(most=2)
    stream.publish("x", 1)
    stream.publish("x", 2)
    for _ in range(5):
        assert stream.feed.read(stream.board.frames("x")) is None
    assert stream.values() == [1, 2]


def test_a_topic_that_only_begins_so_pushes_nothing_out() -> None:
    stream = Stream("arm", newest=True)
    stream.publish("arm", 1)
    stream.publish("arm.left", 2)
    assert stream.values() == [1]


@pytest.mark.parametrize("newest", [False, True])
def test_what_is_no_publication_is_told_in_its_turn(newest: bool) -> None:
    stream = Stream(newest=newest)
    stream.publish("x", 1)
    stream.backlog.add(ProtocolError("garbage"))
    stream.publish("y", 2)
    first = stream.backlog.take()
    assert first is not None
    with pytest.raises(ProtocolError, match="garbage"):
        stream.backlog.take()
    assert stream.values() == [2]


def test_a_value_that_is_none_is_told_where_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="not a publication"):
        Publication("x", published(0).meta, b"{").sample()


class Asked:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_an_age_is_by_the_engines_clock() -> None:
    asked = Asked()
    ages = Ages(lambda now: Estimate(now, now + 5 * NS, 1000, BOOT, is_fresh=True), asked)
    assert ages.of(published(clock=7 * NS), now=3 * NS) == 1.0
    assert ages.of(published(clock=9 * NS), now=3 * NS) == 0.0, "within the bound"
    assert asked.times == 0


def test_nobody_can_tell_the_age_by_a_clock_that_is_not_told_or_another_boots() -> None:
    asked = Asked()
    ages = Ages(lambda now: Estimate(now, now, 0, BOOT, is_fresh=True), asked)
    assert ages.of(published(clock=0), now=NS) is None
    assert asked.times == 0, "an older engine tells none"
    assert ages.of(published(clock=5, boot=BOOT + 1), now=NS) is None
    assert asked.times == 1


def test_the_clock_is_asked_for_again_and_used_meanwhile() -> None:
    asked = Asked()
    told: list[Estimate | None] = [Estimate(NS, 2 * NS, 0, BOOT, is_fresh=True)]
    ages = Ages(lambda now: told[0], asked)
    assert ages.of(published(clock=NS), now=NS) == 1.0
    told[0] = None
    now = ASK_NS
    assert ages.of(published(clock=NS), now=now) == now / NS
    assert ages.of(published(clock=NS), now=now + 1) is not None
    assert asked.times == 1
    ages.of(published(clock=NS), now=2 * ASK_NS)
    assert asked.times == 2
