from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.fair_queue import FairQueue


def served(fair: FairQueue[str], cost: float = 1.0) -> str:
    """Serve whoever is next."""
    key = fair.next()
    fair.charge(key, cost)
    return key


def test_who_was_served_least_is_next() -> None:
    fair = FairQueue[str]()
    for key in "abc":
        fair.join(key)
    assert [served(fair, 3.0 if key == "a" else 1.0) for key in "abc"] == ["a", "b", "c"]
    assert [served(fair) for _ in range(4)] == ["b", "c", "b", "c"]


def test_who_comes_anew_starts_where_the_others_are() -> None:
    fair = FairQueue[str]()
    fair.join("a")
    for _ in range(50):
        served(fair)
    fair.join("b")
    assert [served(fair) for _ in range(20)].count("b") in (10, 11)


def test_who_leaves_and_comes_back_has_gained_nothing() -> None:
    fair = FairQueue[str]()
    fair.join("steady")
    turns = []
    for _ in range(100):
        fair.join("hasty")
        while (key := served(fair)) != "hasty":
            turns.append(key)
        fair.leave("hasty")
    assert len(turns) >= 99


def test_what_it_cost_is_charged_after_it_has_left() -> None:
    fair = FairQueue[str]()
    for key in "ab":
        fair.join(key)
    assert served(fair) == "a"
    fair.leave("a")
    fair.charge("a", 10.0)
    fair.charge("nobody", 10.0)
    fair.join("a")
    assert [served(fair) for _ in range(11)] == ["b"] * 11


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "serve", "mend"]), st.integers(0, 5)), max_size=80))
def test_whoever_waits_gets_a_turn_and_nobody_else(events: list[tuple[str, int]]) -> None:
    fair, waiting = FairQueue[int](), set[int]()
    for event, key in events:
        if event == "join" and key not in waiting:
            fair.join(key)
            waiting.add(key)
        elif event == "leave" and key in waiting:
            fair.leave(key)
            waiting.remove(key)
        elif event == "mend":
            fair.charge(key, -0.5)
        elif waiting:
            chosen = fair.next()
            assert chosen in waiting
            fair.charge(chosen, 1.0)
        assert set(fair) == waiting
        assert len(fair) == len(waiting)
    for _ in range(200 * len(waiting)):
        chosen = fair.next()
        fair.charge(chosen, 1.0)
        waiting.discard(chosen)
    assert not waiting


def test_those_who_come_and_go_for_ever_are_forgotten() -> None:
    fair = FairQueue[int]()
    fair.join(-1)
    for key in range(10_000):
        fair.join(key)
        fair.leave(key)
    assert len(fair._heap) + len(fair._gone) < 1000
    assert fair.next() == -1
