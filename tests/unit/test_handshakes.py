from __future__ import annotations

from taskengine.handshakes import Handshakes
from taskengine.wire import CLIENTS_KEPT


def test_after_a_rest_some_may_come_at_once_and_then_so_many_a_second() -> None:
    handshakes = Handshakes(rate=10.0, burst=5)
    knocks = [handshakes.knock("storm", 100.0) for _ in range(20)]
    assert [knock.is_let_in for knock in knocks] == [True] * 5 + [False] * 15
    assert [knock.is_news for knock in knocks].count(True) == 1
    assert handshakes.knock("other", 100.0).is_let_in
    later = [handshakes.knock("storm", 100.0 + step / 100) for step in range(1, 1001)]
    assert 99 <= sum(knock.is_let_in for knock in later) <= 101
    assert not any(knock.is_news for knock in later), "it is still the same storm"


def test_another_storm_is_news() -> None:
    handshakes = Handshakes(rate=10.0, burst=5)
    for start in (100.0, 200.0):
        assert sum(handshakes.knock("storm", start).is_news for _ in range(20)) == 1


def test_memory_is_bounded_and_who_still_storms_is_remembered() -> None:
    handshakes = Handshakes(rate=10.0, burst=5)
    for number in range(2 * CLIENTS_KEPT):
        handshakes.knock(f"{number}", 100.0)
        storm = handshakes.knock("storm", 100.0)
    assert len(handshakes._callers) <= CLIENTS_KEPT
    assert not storm.is_let_in
