"""What the kernel tells of a connection by its descriptor."""

from __future__ import annotations

import contextlib
import socket

from taskengine.runtime.sockets import end, unsent
from tests.engine import wait_until


def test_a_closed_connection_has_no_unsent_bytes() -> None:
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
