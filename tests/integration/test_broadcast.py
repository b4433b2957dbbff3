"""A data worker's socket and subscribers that take nothing, without an engine around it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from threading import Thread

import pytest
import zmq

from taskengine.broker.topics import TopicTable
from taskengine.config.settings import Settings
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.worker import publisher_socket
from taskengine.worker.publisher_socket import PublisherSocket
from taskengine.worker.tuning import MAX_UNTAKEN_BYTES
from tests.engine import deadline, free_ports, wait_until
from tests.integration.test_attacks import MIB

SIZE = 8 * MIB
MANY = 3 * MAX_UNTAKEN_BYTES // SIZE


@pytest.fixture
def contexts() -> Iterator[tuple[zmq.Context[zmq.Socket[bytes]], zmq.Context[zmq.Socket[bytes]]]]:
    """The data worker's, and its subscribers'."""
    with zmq.Context() as own, zmq.Context() as theirs:
        yield own, theirs


@pytest.mark.alone
def test_whoever_takes_nothing_is_cut_off_and_others_miss_nothing(
    contexts: tuple[zmq.Context[zmq.Socket[bytes]], zmq.Context[zmq.Socket[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past 64 MiB that one did not take nobody was sent anything."""
    own, theirs = contexts
    monkeypatch.setattr(publisher_socket, "LOOK_S", deadline(10 * publisher_socket.LOOK_S))
    address = f"tcp://127.0.0.1:{free_ports(1)}"
    journal = LogBuffer(os.open(os.devnull, os.O_WRONLY), enabled=False)
    topics = TopicTable("DATA-1")
    broadcast = PublisherSocket(own, Settings(), None, address, topics, journal)
    received: list[int] = []
    with theirs.socket(zmq.SUB) as idle, theirs.socket(zmq.SUB) as honest:
        for socket in (idle, honest):
            socket.linger, socket.reconnect_ivl = 0, -1
        idle.rcvhwm, idle.rcvbuf = 1, 4096
        honest.rcvhwm = 0
        for socket in (idle, honest):
            socket.connect(address)
            socket.subscribe("camera")

        def are_known() -> bool:
            broadcast.handle_connections()
            broadcast.handle_subscriptions(0.0)
            return len(broadcast._subscribers.known) == 2

        wait_until(are_known, 20, "the subscriptions")

        def read() -> None:
            while len(received) < MANY and honest.poll(int(deadline(20) * 1000)):
                received.append(json.loads(honest.recv_multipart()[1])["part"])

        reader = Thread(target=read)
        reader.start()
        for number in range(1, MANY + 1):
            topics.keep("camera", "x" * SIZE, 0.0)
            broadcast.publish("camera")
            while number - len(received) > 3 and reader.is_alive():
                reader.join(0.001)
        reader.join()
        broadcast.close()
    assert received == list(range(1, MANY + 1))
