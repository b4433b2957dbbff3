from __future__ import annotations

import msgspec
import pytest

from taskengine.errors import BadArguments, Overloaded, TaskFailed
from taskengine.samples import Feed
from taskengine.topics import Board, lane_of, owner, publisher_of
from taskengine.wire import LAST_BYTES, TOPICS_KEPT


def test_a_topic_has_one_owner() -> None:
    assert {owner("cpu.load", 3) for _ in range(5)} == {owner("cpu.load", 3)}
    assert {owner(f"topic {number}", 3) for number in range(100)} == {0, 1, 2}


def test_without_data_workers_nothing_serves_a_topic() -> None:
    with pytest.raises(Overloaded, match="DATA_WORKERS"):
        lane_of("cpu.load", 0)


def test_a_publication_is_topic_meta_and_data() -> None:
    topic, meta, data = Board("DATA-7").publish("cpu.load", {"one": 0.5}, now=12.5)
    assert topic == b"cpu.load"
    assert msgspec.json.decode(meta) == {
        "id": "DATA-7",
        "role": "publisher",
        "version": 0.1,
        "type": "PUB",
        "pack": 12.5,
        "length": 1,
        "serial": "cpu.load",
        "part": 1,
        "size": 1,
        "publisher": "engine",
        "clock": 0,
        "boot": 0,
    }
    assert msgspec.json.decode(data) == {"size": 1, "data": {"one": 0.5}, "pack": 12.5}


def test_the_last_value_is_kept_and_replayed() -> None:
    board = Board("DATA-7")
    for value in (1, 2):
        board.publish("arm.left", value, now=float(value))
    board.publish("leg", 3, now=3.0)
    assert msgspec.msgpack.decode(board.latest("arm.left")) == 2
    [topic] = board.topics(b"arm")
    assert msgspec.json.decode(board.frames(topic)[1])["part"] == 2
    assert len(board.topics(b"")) == 2


def test_a_topic_without_a_value_says_so() -> None:
    with pytest.raises(TaskFailed, match="nothing was published on topic 'x'") as caught:
        Board("DATA-7").latest("x")
    assert caught.value.type == "LookupError"


def test_the_number_of_topics_is_bounded_and_known_ones_still_publish() -> None:
    board = Board("DATA-7")
    for number in range(TOPICS_KEPT):
        board.publish(str(number), number, now=0.0)
    with pytest.raises(Overloaded, match="1024 topics of engine already"):
        board.publish("one more", 0, now=0.0)
    board.publish("0", 1, now=0.0)


def test_the_bytes_of_last_values_are_bounded_and_a_client_has_half_of_all() -> None:
    board, value = Board("DATA-7"), "x" * (LAST_BYTES // 32)
    for number in range(7):
        board.publish(f"a {number}", value, now=0.0, publisher="client:a")
    with pytest.raises(Overloaded, match="bytes of last values of client:a, and 33554432 at most") as full:
        board.publish("a 7", value, now=0.0, publisher="client:a")
    assert full.value.limit == LAST_BYTES // 2
    board.publish("a 0", "small", now=0.0, publisher="client:a")
    board.publish("a 1", value, now=0.0, publisher="source")
    board.publish("a 0", value, now=0.0, publisher="client:a")
    for number in range(7):
        board.publish(f"b {number}", value, now=0.0, publisher="client:b")
    with pytest.raises(Overloaded, match="bytes of last values of client:c"):
        board.publish("c", value * 2, now=0.0, publisher="client:c")
    kept = sum(sum(map(len, board.frames(topic))) + len(board.latest(topic)) for topic in board.topics(b""))
    assert LAST_BYTES * 0.8 < kept <= LAST_BYTES
    assert board._size == kept == sum(board._sizes.values())


def test_a_client_has_half_of_the_topics() -> None:
    board = Board("DATA-7")
    for number in range(TOPICS_KEPT // 2):
        board.publish(str(number), number, now=0.0, publisher="client")
    with pytest.raises(Overloaded, match="512 topics of client already"):
        board.publish("one more", 0, now=0.0, publisher="client")
    board.publish("one more", 0, now=0.0, publisher="client:tablet")
    board.publish("0", 1, now=0.0, publisher="client")


def test_a_value_that_is_no_message_pack_is_published_and_told_of_to_who_asks() -> None:
    board = Board("DATA-7")
    assert board.publish("huge", 2**70, now=0.0)
    with pytest.raises(BadArguments):
        board.latest("huge")


def test_a_publication_names_its_publisher() -> None:
    assert [publisher_of(name) for name in ("", "tablet")] == ["client", "client:tablet"]
    frames = Board("DATA-7").publish("x", 1, now=0.0, publisher=publisher_of("tablet"))
    sample = Feed("x").take(frames)
    assert sample is not None
    assert sample.publisher == "client:tablet"
