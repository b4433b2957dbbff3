"""Connections of a ROUTER: when they come, and which client has left with one."""

from __future__ import annotations

import socket

import zmq

from taskengine._socket import Port, Waiter
from taskengine.protocol.layouts import MAGIC
from taskengine.router.connection_monitor import ConnectionMonitor
from tests.engine import deadline, wait_until


def test_news_of_connections_are_signalled_from_the_first_on() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        attendance = ConnectionMonitor(
            context, router, Port(router), lambda _: None, 4096, lambda event, **fields: None
        )
        news = Waiter(attendance.news)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)):
                assert news.wait(int(deadline(10.0) * 1000))
                attendance.read()
            assert news.wait(int(deadline(10.0) * 1000))
            attendance.read()
            assert not news.wait(0)
        attendance.close()


def test_who_has_left() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = Port(router)
        left: list[bytes] = []
        attendance = ConnectionMonitor(context, router, port, left.append, 4096, lambda event, **fields: None)
        router.bind("tcp://127.0.0.1:*")
        address = router.getsockopt_string(zmq.LAST_ENDPOINT)
        clients: list[bytes] = []

        def greet_next() -> None:
            assert router.poll(int(deadline(10.0) * 1000))
            message = port.receive_request(MAGIC, 9)
            assert message is not None
            clients.append(message[0][0])
            attendance.greet(clients[-1])

        with context.socket(zmq.DEALER) as survivor:
            survivor.connect(address)
            survivor.send_multipart([MAGIC, b"x"])
            greet_next()  # before the others: two clients of one descriptor leave together
            for _ in range(20):  # descriptors are used again and again
                with context.socket(zmq.DEALER) as dealer:
                    dealer.linger = int(deadline(10.0) * 1000)
                    dealer.connect(address)
                    dealer.send_multipart([MAGIC, b"x"])
            while len(clients) < 21:
                greet_next()

            def have_left() -> bool:
                attendance.read()
                return len(set(left)) >= 20

            wait_until(have_left, 10, "the news of their ends")
            survivor.send_multipart([MAGIC, b"y"])
            assert router.poll(int(deadline(10.0) * 1000))
            alive = port.receive_request(MAGIC, 9)
            assert alive is not None
            assert alive[0][0] == clients[0]
            assert clients[0] not in left
        attendance.close()
