from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.presence import GONE_KEPT, Presence, is_own_id


def own(number: int) -> bytes:
    return b"\0" + number.to_bytes(4)


def test_a_client_leaves_with_its_connection() -> None:
    presence = Presence()
    assert presence.begin(7) == []
    assert own(1) not in presence.known
    assert presence.hear(own(1), 7)
    assert own(1) in presence.known
    assert presence.end(7) == [own(1)]
    assert own(1) not in presence.known


def test_what_it_sent_before_is_known_to_be_a_dead_clients() -> None:
    presence = Presence()
    presence.begin(7)
    presence.end(7)
    assert not presence.hear(own(1), 7)
    presence.begin(7)
    assert not presence.hear(own(1), 7), "another has its descriptor"
    assert presence.hear(own(2), 7)
    assert presence.end(7) == [own(2)]


def test_an_end_of_which_nobody_told() -> None:
    presence = Presence()
    presence.begin(7)
    presence.hear(own(1), 7)
    assert presence.begin(7) == [own(1)]
    assert presence.hear(own(2), 7)


def test_who_says_who_it_is_may_come_again() -> None:
    presence = Presence()
    presence.begin(7)
    presence.hear(b"arm", 7)
    assert presence.end(7) == [b"arm"]
    presence.begin(8)
    assert presence.hear(b"arm", 8)


def test_without_a_descriptor_nobody_leaves_and_memory_is_bounded() -> None:
    presence = Presence()
    assert presence.hear(b"x", -1)
    assert b"x" not in presence.known
    for number in range(2 * GONE_KEPT):
        presence.begin(1)
        presence.hear(own(number), 1)
        presence.end(1)
    assert len(presence._gone) == GONE_KEPT
    assert not presence.known


def test_a_routing_id_belongs_to_a_key_and_a_descriptor() -> None:
    presence = Presence()
    presence.begin(7)
    assert presence.hear(own(1), 7, "key")
    assert presence.known[own(1)] == (7, "key")
    assert presence.has_key(own(1), "key")
    assert not presence.has_key(own(1), "other key")
    presence.end(7)
    assert not presence.has_key(own(1), "key")
    assert is_own_id(own(1))
    assert not any(map(is_own_id, (b"", b"\0", b"\0" * 4, b"\0" * 6, b"x" * 5)))


@pytest.mark.parametrize("by", ["address", "key"])
def test_nobody_takes_more_connections_than_are_left_to_others(by: str) -> None:
    presence = Presence(10)
    kept = []

    def come(descriptor: int, who: str) -> None:
        presence.begin(descriptor, who if by == "address" else "")
        excess = presence.excess(descriptor)
        if excess is None and presence.hear(own(descriptor), descriptor, who if by == "key" else ""):
            excess = presence.excess(descriptor)
        assert excess in (None, descriptor)
        if excess is None:
            kept.append(who)
        else:
            presence.end(descriptor)

    for descriptor in range(20):
        come(descriptor, "greedy")
    come(20, "other")
    come(21, "third")
    assert kept == ["greedy"] * 5 + ["other", "third"]


def test_the_last_message_of_another_ends_nobodys_connection() -> None:
    """It may come by a descriptor that is a third client's by then."""
    presence = Presence(4)
    for descriptor in (1, 2):
        presence.begin(descriptor)
        presence.hear(own(descriptor), descriptor, "greedy")
    presence.begin(3)
    presence.end(3)
    presence.begin(3)
    assert presence.hear(own(3), 3, "greedy"), "of whoever had the descriptor before"
    assert presence.excess(3) is None
    presence.settle()
    assert presence.hear(own(4), 3, "honest")
    assert presence.claim(3, "honest") or presence.excess(3) is None
    assert presence.end(3) == [own(3), own(4)]
    presence.begin(5)
    presence.end(5)
    presence.begin(5)
    presence.hear(own(5), 5, "greedy")
    assert not presence.claim(5, "greedy")
    presence.settle()
    assert presence.claim(5, "greedy"), "it is known by its second message"
    assert presence.excess(5) == 5


def test_where_no_connection_is_free_the_one_goes_that_has_been_silent_for_longest() -> None:
    presence = Presence(3)
    presence.begin(1)
    presence.hear(own(1), 1)
    for descriptor in (2, 3):
        presence.begin(descriptor)
        assert presence.excess(descriptor) is None
    presence.begin(4)
    assert presence.excess(4) == 2
    presence.end(2)
    for descriptor in (3, 4):
        presence.hear(own(descriptor), descriptor)
    presence.begin(5)
    presence.hear(own(5), 5)
    assert presence.excess(5) == 5, "nobody is silent"
    assert presence.excess(99) is None


@given(st.data())
def test_nobody_who_is_there_is_said_to_have_left(data: st.DataObject) -> None:
    """Connections come and go by two descriptors; each sends once, which is read at any later moment."""
    presence = Presence()
    news: list[tuple[bool, int]] = []
    unread: list[tuple[bytes, int]] = []
    alive: dict[int, bytes] = {}
    left: set[bytes] = set()
    made = 0
    for _ in range(data.draw(st.integers(1, 30))):
        descriptor = data.draw(st.sampled_from([5, 6]))
        if data.draw(st.booleans()):
            if descriptor in alive:
                del alive[descriptor]
                news.append((False, descriptor))
            else:
                alive[descriptor] = own(made)
                news.append((True, descriptor))
                unread.append((own(made), descriptor))
                made += 1
        elif unread:
            client, by = unread.pop(data.draw(st.integers(0, len(unread) - 1)))
            for is_begin, number in news:
                left.update(presence.begin(number) if is_begin else presence.end(number))
            news.clear()
            if not presence.hear(client, by):
                left.add(client)
        assert left.isdisjoint(alive.values())
    for is_begin, number in [*news, (False, 5), (False, 6)]:
        left.update(presence.begin(number) if is_begin else presence.end(number))
    heard = {own(number) for number in range(made)} - {client for client, _ in unread}
    assert left == heard, "all have left in the end"


def test_what_is_cut_counts_no_more() -> None:
    presence = Presence(4)
    for descriptor in (1, 2):
        presence.begin(descriptor, "storm")
        assert presence.excess(descriptor) is None
    assert presence.cut(2)
    assert not presence.cut(2)
    assert not presence.cut(9)
    presence.begin(3, "storm")
    assert presence.excess(3) is None
    assert presence.end(2) == []
