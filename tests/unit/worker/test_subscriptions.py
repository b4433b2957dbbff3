from __future__ import annotations

import contextlib
import socket

import pytest

from taskengine.runtime.sockets import cut, number_of, unread
from taskengine.worker.subscriptions import BURST_S, Replay, Subscribers, idlest
from taskengine.worker.tuning import MAX_SUBSCRIPTIONS, REPLAY_RATE


def many(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def test_subscriptions_that_are_over_do_not_count() -> None:
    subscribers = Subscribers()
    busy, greedy = subscribers.meet(5, 1, "busy"), subscribers.meet(6, 2, "greedy")
    for prefix in many(0, 3 * MAX_SUBSCRIPTIONS):
        assert subscribers.add(busy, prefix)
        subscribers.remove(busy, prefix)
        subscribers.remove(busy, prefix)
    assert not subscribers.has_too_many(busy)
    for prefix in many(0, MAX_SUBSCRIPTIONS // 2):
        subscribers.add(greedy, prefix)
        assert not subscribers.add(greedy, prefix), "it has it already"
    assert not subscribers.has_too_many(greedy)
    subscribers.add(greedy, b"one more")
    assert subscribers.has_too_many(greedy)
    assert not subscribers.has_too_many(busy)
    assert subscribers.greediest() == [greedy]


def test_a_key_counts_with_all_its_connections_and_without_keys_each_alone() -> None:
    for user, has_too_many in ("key", True), ("", False):
        subscribers = Subscribers()
        both = [subscribers.meet(descriptor, descriptor, user) for descriptor in (5, 6)]
        for connection in both:
            for prefix in many(0, MAX_SUBSCRIPTIONS // 3):
                subscribers.add(connection, prefix)
        assert subscribers.has_too_many(both[0]) is has_too_many
        assert subscribers.of(user) == both
        assert subscribers.greediest() == (both if user else both[:1])


def test_who_has_most_goes_where_all_have_too_many() -> None:
    subscribers = Subscribers()
    sizes = [MAX_SUBSCRIPTIONS // 2, MAX_SUBSCRIPTIONS // 3, MAX_SUBSCRIPTIONS // 3]
    all_ = [subscribers.meet(n, n, str(n)) for n in range(len(sizes))]
    for connection, size in zip(all_, sizes, strict=True):
        for prefix in many(0, size):
            subscribers.add(connection, prefix)
    assert subscribers.has_too_many(all_[2])
    assert subscribers.greediest() == all_[:1]
    subscribers.sweep(lambda connection: connection is not all_[0])
    assert not subscribers.has_too_many(all_[2])
    subscribers.forget(all_[0])
    assert list(subscribers.known.values()) == all_[1:]


def test_subscriptions_of_a_connection_that_was_forgotten_meanwhile_do_not_count() -> None:
    subscribers = Subscribers()
    gone, other = subscribers.meet(5, 7, ""), subscribers.meet(6, 8, "")
    subscribers.forget(gone)
    for prefix in many(0, MAX_SUBSCRIPTIONS + 1):
        assert not subscribers.add(gone, prefix)
    assert subscribers.add(other, b"x")
    assert not subscribers.has_too_many(other)
    assert subscribers.greediest() == [other]


@pytest.mark.parametrize(("number", "user"), [(8, "a"), (7, "b")])
def test_a_descriptor_may_become_anothers(number: int, user: str) -> None:
    subscribers = Subscribers()
    first = subscribers.meet(5, 7, "a")
    subscribers.add(first, b"x")
    assert subscribers.meet(5, 7, "a") is first
    other = subscribers.meet(5, number, user)
    assert not other.prefixes
    assert list(subscribers.known.values()) == [other]
    assert not subscribers.has_too_many(other)


def test_who_reads_least_is_told_at_the_second_look() -> None:
    subscribers = Subscribers()
    stuck, trickling, reading = [subscribers.meet(n, n, "") for n in range(3)]
    assert idlest([]) == []
    assert idlest([(stuck, 10), (trickling, 10), (reading, 10)]) == []
    assert idlest([(stuck, 10), (trickling, 11), (reading, 1000)]) == [stuck]
    assert idlest([(trickling, 12), (reading, 2000)]) == [trickling]
    assert idlest([(trickling, 13), (reading, 3000)], most_read=0) == []
    assert idlest([(trickling, 13), (reading, 4000)], most_read=0) == [trickling]


def test_a_reader_that_pauses_for_a_moment_is_not_taken_for_one_that_reads_nothing() -> None:
    """On a busy machine both had read nothing between two looks, and both were cut off."""
    subscribers = Subscribers()
    stuck, trickling, paused = (subscribers.meet(number, number, "") for number in (5, 6, 7))
    assert idlest([(stuck, 10), (trickling, 10), (paused, 10)]) == []
    assert idlest([(stuck, 10), (trickling, 11), (paused, 1000)], most_read=100) == [stuck]
    assert idlest([(trickling, 12), (paused, 1000)], most_read=100) == [trickling], "whatever it reads each time"
    assert idlest([(paused, 1000)], most_read=100) == [paused]


def test_last_values_come_again_seldom_and_small_ones_at_once() -> None:
    replay = Replay()
    assert replay.next(0.0) is None
    assert replay.due(0.0) == float("inf")
    replay.add(["a", "b", "c", "a"])
    replay.drop("c")
    assert replay.next(0.0) == "a"
    replay.spend(REPLAY_RATE, 0.0)
    replay.add(["a"])
    assert replay.next(0.9) is None
    assert replay.due(0.9) == pytest.approx(0.1 - BURST_S)
    assert replay.next(1.0) == "b"
    replay.spend(1, 1.0)
    assert replay.next(1.0) == "a"
    assert replay.next(1.0) is None


def test_an_owner_is_given_last_values_at_a_rate() -> None:
    """By connections it was, and whoever had many was given as many times as much."""
    subscribers = Subscribers()
    mine, own, other, nobodys = [subscribers.meet(n, n, user) for n, user in enumerate(("a", "a", "b", ""))]
    assert subscribers.may_replay(mine, 2 * REPLAY_RATE, 5.0)
    assert not subscribers.may_replay(own, 1, 6.9)
    assert subscribers.may_replay(other, 1, 6.9)
    assert subscribers.may_replay(nobodys, 1, 6.9)
    assert subscribers.may_replay(own, 1, 7.1)


def test_a_connection_leaves_by_its_number() -> None:
    subscribers = Subscribers()
    first, second = (subscribers.meet(n, n + 100, "a") for n in (1, 2))
    subscribers.add(first, b"x")
    subscribers.leave(101)
    assert list(subscribers.known.values()) == [second]


def test_the_kernel_tells_what_a_peer_has_not_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    own, peer = pair
    descriptor, number = own.fileno(), number_of(own.fileno())
    own.setblocking(False)
    own.send(b"x")
    assert peer.recv(1) == b"x"
    told = unread(descriptor, number)
    assert told is not None
    assert told[0] == 0
    with contextlib.suppress(BlockingIOError):
        while own.send(bytes(2**16)):
            pass
    told = unread(descriptor, number)
    assert told is not None
    assert told[0] > 2**14
    assert unread(descriptor, number + 1) is None
    assert unread(-1, 0) is None


def test_a_connection_is_cut_and_no_other(pair: tuple[socket.socket, socket.socket]) -> None:
    own, peer = pair
    number = number_of(own.fileno())
    peer.setblocking(False)
    cut(own.fileno(), number + 1)
    cut(-1, 0)
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    cut(own.fileno(), number)
    assert peer.recv(1) == b""


def test_a_topic_is_sent_in_the_forms_that_subscriptions_may_want() -> None:
    subscribers = Subscribers()
    plain, camera = subscribers.meet(5, 1, ""), subscribers.meet(6, 2, "")
    assert subscribers.wishes("camera") == (False, False)
    subscribers.add(camera, b"\xff\x02cam")
    assert subscribers.wishes("camera") == (False, True)
    assert subscribers.wishes("arm") == (False, False)
    subscribers.add(plain, b"")
    assert subscribers.wishes("camera") == (True, True)
    subscribers.remove(plain, b"")
    subscribers.forget(camera)
    assert subscribers.wishes("camera") == (False, False)
