from __future__ import annotations

import pytest

from taskengine.errors import Overloaded, ProtocolError
from taskengine.samples import Feed
from taskengine.subscription import reachable
from taskengine.topics import Board


def test_a_feed_takes_its_own_topic_only() -> None:
    board, feed = Board("DATA-1"), Feed("arm")
    assert feed.take(board.publish("arm2", 1, now=0.0)) is None
    sample = feed.take(board.publish("arm", 2, now=1.5))
    assert sample is not None
    assert (sample.topic, sample.value, sample.time, sample.number) == ("arm", 2, 1.5, 1)


def test_a_star_takes_all_that_begin_so() -> None:
    board, feed = Board("DATA-1"), Feed("arm*")
    assert feed.prefix == "arm"
    assert [feed.take(board.publish(topic, 0, now=0.0)) is not None for topic in ("arm", "arm2", "arm.left")] == [
        True
    ] * 3


def test_a_repeated_value_comes_once_and_a_new_publisher_counts_anew() -> None:
    board, feed = Board("DATA-1"), Feed("arm")
    board.publish("arm", 1, now=0.0)
    second = board.publish("arm", 2, now=0.0)
    assert feed.take(second) is not None
    assert feed.take(second) is None
    assert feed.take(Board("DATA-2").publish("arm", 3, now=0.0)) is not None


@pytest.mark.parametrize(
    "frames", [[], [b"arm"], [b"arm", b"{", b"{}"], [b"\xff", b"{}", b"{}"], [b"arm", b"{}", b"{}"]]
)
def test_garbage_is_a_protocol_error(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="not a publication"):
        Feed("arm").take(frames)


def test_data_addresses_are_those_of_the_host_that_the_client_knows() -> None:
    bound = ["tcp://0.0.0.0:10002", "tcp://[::]:10003", "tcp://127.0.0.1:10004"]
    assert reachable(bound, "tcp://robot.local:9000") == [
        "tcp://robot.local:10002",
        "tcp://robot.local:10003",
        "tcp://127.0.0.1:10004",
    ]
    with pytest.raises(Overloaded, match="DATA_WORKERS"):
        reachable([], "tcp://robot.local:9000")
