from __future__ import annotations

import msgspec
import pytest

from taskengine.errors import Overloaded, TaskFailed
from taskengine.topics import Board, lane_of, owner
from taskengine.wire import TOPICS_KEPT


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
    }
    assert msgspec.json.decode(data) == {"size": 1, "data": {"one": 0.5}, "pack": 12.5}


def test_the_last_value_is_kept_and_replayed() -> None:
    board = Board("DATA-7")
    for value in (1, 2):
        board.publish("arm.left", value, now=float(value))
    board.publish("leg", 3, now=3.0)
    assert board.latest("arm.left") == 2
    replayed = list(board.replay(b"arm"))
    assert [msgspec.json.decode(frames[1])["part"] for frames in replayed] == [2]
    assert len(list(board.replay(b""))) == 2


def test_a_topic_without_a_value_says_so() -> None:
    with pytest.raises(TaskFailed, match="nothing was published on topic 'x'") as caught:
        Board("DATA-7").latest("x")
    assert caught.value.type == "LookupError"


def test_the_number_of_topics_is_bounded_and_known_ones_still_publish() -> None:
    board = Board("DATA-7")
    for number in range(TOPICS_KEPT):
        board.publish(str(number), number, now=0.0)
    with pytest.raises(Overloaded, match="topics already"):
        board.publish("one more", 0, now=0.0)
    board.publish("0", 1, now=0.0)
