"""What the kernel tells of a connection by its descriptor."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from taskengine.runtime.sockets import end, taken, unsent
from tests.engine import wait_until


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as peer,
        listener.accept()[0] as own,
    ):
        yield own, peer


def test_bytes_count_as_taken_when_this_process_has_read_them(pair: tuple[socket.socket, socket.socket]) -> None:
    own, peer = pair
    peer.sendall(bytes(1000))
    assert taken(own.fileno()) == 0
    assert len(own.recv(300, socket.MSG_WAITALL)) == 300
    assert taken(own.fileno()) == 300
    assert len(own.recv(700, socket.MSG_WAITALL)) == 700
    assert taken(own.fileno()) == 1000


def test_what_is_no_tcp_connection_has_no_count() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert taken(one.fileno()) is None
    assert taken(-1) is None
    assert unsent(2**20) == 0, "it is closed"


def test_unsent_bytes_are_those_that_a_peer_has_no_room_for(pair: tuple[socket.socket, socket.socket]) -> None:
    own, _ = pair
    assert unsent(own.fileno()) == 0
    own.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while own.send(bytes(2**16)):
            pass
    assert unsent(own.fileno()) > 2**14


def test_an_ended_connection_keeps_its_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    own, peer = pair
    descriptor = own.fileno()
    end(-1)
    end(descriptor)
    assert peer.recv(1) == b""
    assert own.fileno() == descriptor
    wait_until(lambda: own.recv(1) == b"", 5, "the end at this side")
