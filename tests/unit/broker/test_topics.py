from __future__ import annotations

import msgspec
import numpy
import pytest

from taskengine import _fastpath
from taskengine.broker.topics import TopicTable, lane_of, owner, publisher_of
from taskengine.client.samples import SubscriptionFilter
from taskengine.errors import BadArguments, Overloaded, TaskFailed
from taskengine.protocol.limits import LAST_BYTES, MAX_TOPICS


def test_a_topic_has_one_owner() -> None:
    assert {owner("cpu.load", 3) for _ in range(5)} == {owner("cpu.load", 3)}
    assert {owner(f"topic {number}", 3) for number in range(100)} == {0, 1, 2}


def test_without_data_workers_nothing_serves_a_topic() -> None:
    with pytest.raises(Overloaded, match="DATA_WORKERS"):
        lane_of("cpu.load", 0)


def test_a_publication_is_topic_meta_and_data() -> None:
    topic, meta, data = TopicTable("DATA-7").publish("cpu.load", {"one": 0.5}, now=12.5)
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
        "dropped": 0,
    }
    assert msgspec.json.decode(data) == {"size": 1, "data": {"one": 0.5}, "pack": 12.5}


def test_the_last_value_is_kept_and_replayed() -> None:
    board = TopicTable("DATA-7")
    for value in (1, 2):
        board.publish("arm.left", value, now=float(value))
    board.publish("leg", 3, now=3.0)
    assert msgspec.msgpack.decode(board.latest("arm.left")) == 2
    [topic] = board.topics(b"arm")
    assert msgspec.json.decode(board.frames(topic)[1])["part"] == 2
    assert len(board.topics(b"")) == 2


def test_a_topic_without_a_value_says_so() -> None:
    with pytest.raises(TaskFailed, match="nothing was published on topic 'x'") as caught:
        TopicTable("DATA-7").latest("x")
    assert caught.value.type == "LookupError"


def test_the_number_of_topics_is_bounded_and_known_ones_still_publish() -> None:
    board = TopicTable("DATA-7")
    for number in range(MAX_TOPICS):
        board.publish(str(number), number, now=0.0)
    with pytest.raises(Overloaded, match="1024 topics of engine already"):
        board.publish("one more", 0, now=0.0)
    board.publish("0", 1, now=0.0)


def test_the_bytes_of_last_values_are_bounded_and_a_client_has_half_of_all() -> None:
    board, value = TopicTable("DATA-7"), "x" * (LAST_BYTES // 32)
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
    board = TopicTable("DATA-7")
    for number in range(MAX_TOPICS // 2):
        board.publish(str(number), number, now=0.0, publisher="client")
    with pytest.raises(Overloaded, match="512 topics of client already"):
        board.publish("one more", 0, now=0.0, publisher="client")
    board.publish("one more", 0, now=0.0, publisher="client:tablet")
    board.publish("0", 1, now=0.0, publisher="client")


def test_a_value_that_is_no_message_pack_is_published_and_told_of_to_who_asks() -> None:
    board = TopicTable("DATA-7")
    assert board.publish("huge", 2**70, now=0.0)
    with pytest.raises(BadArguments):
        board.latest("huge")


def test_a_publication_names_its_publisher() -> None:
    assert [publisher_of(name) for name in ("", "tablet")] == ["client", "client:tablet"]
    frames = TopicTable("DATA-7").publish("x", 1, now=0.0, publisher=publisher_of("tablet"))
    sample = SubscriptionFilter("x").take(frames)
    assert sample is not None
    assert sample.publisher == "client:tablet"


def test_values_travel_as_they_are_to_those_who_want_that() -> None:
    board = TopicTable("DATA-7")
    array = numpy.arange(6, dtype="u1").reshape(2, 3)
    values: list[object] = [b"\xff\xd8 a picture", array, {"a": [b"x", float("inf")]}, 2**70, numpy.float64(0.5)]
    for value in values:
        board.keep("x", value, now=0.0)
        sample = SubscriptionFilter("x", binary=True).take(board.binary_frames("x"))
        assert sample is not None
        assert type(sample.value) is type(value) or sample.value == value
        assert numpy.array_equal(sample.value, value) if value is array else sample.value == value
        in_json = SubscriptionFilter("x").take(board.frames("x"))
        assert in_json is not None
        assert (in_json.number, in_json.time) == (sample.number, sample.time)
    board.keep("x", array, now=0.0)
    array[0, 0] = 9
    assert msgspec.json.decode(board.frames("x")[2])["data"] == [[0, 1, 2], [3, 4, 5]], "it was published before"
    assert _fastpath.unpack(board.latest("x"), 1, bytes)[0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_bytes_cost_what_they_have_and_a_head() -> None:
    board, picture = TopicTable("DATA-7"), bytes(50_000)
    board.keep("camera", picture, now=0.0, publisher="client:a camera of a long name", clock=2**60)
    assert sum(map(len, board.binary_frames("camera"))) <= 1.02 * len(picture)
    assert board._size <= 1.02 * len(picture), "the text is made when it is wanted"


def test_what_json_cannot_hold_is_refused_whatever_form_is_wanted() -> None:
    board = TopicTable("DATA-7")
    for value in (1j, numpy.array([1j]), numpy.ma.masked_array([1], [True])):
        with pytest.raises(TypeError):
            board.keep("x", value, now=0.0)


def test_a_publication_says_how_many_before_it_were_dropped() -> None:
    board = TopicTable("DATA-7")
    told = []
    for is_sent, comes_late in ((True, False), (False, True), (False, False), (False, False), (True, False)):
        board.keep("x", 1, now=0.0)
        told.append(msgspec.json.decode(board.frames("x")[1])["dropped"])
        if not is_sent:
            board.put_off("x")
        if comes_late:
            board.was_sent("x")
    assert told == [0, 0, 0, 1, 2]
