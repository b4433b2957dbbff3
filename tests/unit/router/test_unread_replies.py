from __future__ import annotations

from taskengine.protocol.limits import MAX_CLIENTS
from taskengine.router.unread_replies import UnreadReplies


class Connections:
    """Clients that read, or do not; each look is counted."""

    def __init__(self) -> None:
        self.reads, self.looks = False, 0

    def has_read(self, client: bytes) -> bool:
        self.looks += 1
        return self.reads

    def cut_off(self, client: bytes, reason: str = "") -> None:
        raise AssertionError("nobody is cut off")


def test_a_client_is_looked_at_late_and_gets_no_more_than_the_most() -> None:
    connections = Connections()
    unread = UnreadReplies(connections, looked_at=2, most=4)
    for looks in 0, 0, 1, 2:
        assert unread.has_room(b"one")
        assert connections.looks == looks
        unread.count(b"one")
    assert not unread.has_room(b"one")
    assert unread.has_room(b"two")
    connections.reads = True
    assert unread.has_room(b"one")
    looks = connections.looks
    unread.count(b"one")
    assert unread.has_room(b"one")
    assert connections.looks == looks, "it has just read all"


def test_where_nobody_can_tell_all_have_room() -> None:
    unread = UnreadReplies(None, 1, 1)
    for _ in range(5):
        unread.count(b"one")
        assert unread.has_room(b"one")


def test_the_counts_of_too_many_clients_are_dropped() -> None:
    unread = UnreadReplies(Connections(), 1, 1)
    for number in range(MAX_CLIENTS):
        unread.count(b"%d" % number)
    assert not unread.has_room(b"0")
    unread.count(b"another")
    assert unread.has_room(b"0")
