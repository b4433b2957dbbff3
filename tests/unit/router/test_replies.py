"""Replies that the router keeps for clients that do not read: of one, of one key, and of all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import zmq

from taskengine._socket import Port
from taskengine.protocol.limits import MAX_CLIENTS
from taskengine.router import replies
from taskengine.router.replies import ReplySender
from tests.engine import deadline, wait_until

BIG = 2**22
"""More than the system takes of what is not read, with `sndbuf` as here."""


class Street:
    """A ROUTER, and clients that do not read."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], held: contextlib.ExitStack) -> None:
        self._context, self._held = context, held
        self.dealers: dict[bytes, zmq.Socket[bytes]] = {}
        self.router = held.enter_context(context.socket(zmq.ROUTER))
        self.router.router_mandatory, self.router.linger, self.router.sndbuf = 1, 0, 2**14
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self._address = f"tcp://127.0.0.1:{port}"

    def client(self) -> bytes:
        dealer = self._held.enter_context(self._context.socket(zmq.DEALER))
        dealer.linger, dealer.rcvhwm, dealer.rcvbuf = 0, 1, 2**14
        dealer.connect(self._address)
        dealer.send(b"hello")
        assert self.router.poll(int(deadline(20) * 1000))
        client = self.router.recv_multipart()[0]
        self.dealers[client] = dealer
        return client


class Connections:
    """Records which client has read its replies, and which was cut off."""

    def __init__(self) -> None:
        self.cut: list[bytes] = []
        self.have_read: set[bytes] = set()

    def has_read(self, client: bytes) -> bool:
        return client in self.have_read

    def cut_off(self, client: bytes, reason: str = "") -> None:
        self.cut.append(client)


@pytest.fixture
def street() -> Iterator[Street]:
    with zmq.Context() as context, contextlib.ExitStack() as held:
        yield Street(context, held)


def fill(made: ReplySender, client: bytes, key: str, size: int, most: int) -> int:
    """Replies of that size that are sent until no more are."""
    for sent in range(most):
        if made.is_full(client, key, size):
            return sent
        made.send([client], [bytes(size)], key, size)
    return most


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "UNREAD_BYTES", 8 * BIG)
    monkeypatch.setattr(replies, "UNREAD_KEY_BYTES", 16 * BIG)
    monkeypatch.setattr(replies, "UNREAD_ALL_BYTES", 64 * BIG)


@pytest.mark.usefixtures("limits")
def test_the_connections_of_a_key_share_what_it_may_leave_unread(street: Street) -> None:
    made = ReplySender(Port(street.router))
    sent = sum(fill(made, street.client(), "greedy", BIG, 20) for _ in range(5))
    assert 14 <= sent <= 20
    assert not made.is_full(street.client(), "other", BIG)
    reads = street.client()
    assert made.is_full(reads, "greedy", 2 * BIG)
    assert not made.is_full(reads, "greedy", 1000), "it has read all before it"
    assert 12 * BIG < made.unread < 17 * BIG


@pytest.mark.usefixtures("limits")
def test_what_is_encrypted_and_not_read_counts_too(street: Street) -> None:
    connections = Connections()
    made = ReplySender(Port(street.router), connections)
    clients = [street.client() for _ in range(3)]
    for client in clients[:2]:
        made._encrypted.setdefault("greedy", {})[client] = 8 * BIG
    assert made.is_full(clients[2], "greedy", BIG)
    assert made.unread == 16 * BIG
    assert not made.is_full(clients[2], "other", BIG)
    connections.have_read.add(clients[0])
    assert not made.is_full(clients[2], "greedy", BIG)
    connections.have_read.update(clients)
    made.send([clients[2]], [bytes(BIG)], "greedy", BIG)
    assert made._encrypted["greedy"][clients[2]] == BIG
    assert len(street.dealers[clients[2]].recv()) == BIG
    wait_until(lambda: made.unread == 0, 20, "the debt to be paid")
    assert not made._encrypted


@pytest.mark.usefixtures("limits")
def test_without_keys_all_connections_leave_half_of_what_is_free(street: Street) -> None:
    made = ReplySender(Port(street.router))
    for _ in range(16):
        fill(made, street.client(), "", 7 * BIG, 1)
    assert 40 * BIG < made.unread < 64 * BIG
    assert not made.is_full(street.client(), "", BIG), "who reads gets what is not too large"


def test_one_reply_may_be_larger_than_any_limit(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "UNREAD_ALL_BYTES", BIG)
    made = ReplySender(Port(street.router))
    assert not made.is_full(street.client(), "", 10 * BIG)
    assert not made.is_full(street.client(), "key", 10 * BIG)


def test_who_leaves_very_many_small_replies_unread_is_cut_off(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "UNREAD_SMALL_BYTES", 2**20)
    connections = Connections()
    cut = connections.cut
    made = ReplySender(Port(street.router), connections)
    first, second, third = (street.client() for _ in range(3))
    for _ in range(16_384):
        for client in (first, second):
            if client not in cut:
                made.send([client], [bytes(500)], "greedy")
    assert cut
    assert made.unread < 2**21
    made.send([third], [bytes(500)], "other")
    assert third not in cut


def test_clients_that_owe_nothing_are_forgotten(street: Street) -> None:
    made = ReplySender(Port(street.router))
    for number in range(3000):
        made.send([b"gone %d" % number], [b"x"], f"{number}")
        assert not made.is_full(b"gone %d" % number, "", 1)
    assert len(made._debts) <= MAX_CLIENTS
    assert len(made._small_of) <= MAX_CLIENTS
