"""The listener for a code, and who calls it, in one process; `make test` also tries the commands."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable

import pytest

from taskengine.errors import KeysError
from taskengine.security.keys import new_pair
from taskengine.security.pairing import GUESTS, PairingListener, call, new_code
from taskengine.security.pake import TRIES, Guest
from tests.engine import deadline, free_ports

CODE = "0123-4567"
ENGINE = new_pair().public
HOST = "127.0.0.1"
Paired = tuple[str, str]


class Door:
    """A listener that notes whom it lets in, and who was refused."""

    def __init__(self, allow: Callable[[str], None] | None = None) -> None:
        self.let_in: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.port = free_ports(1)
        self.listener = PairingListener(CODE, ENGINE, "laptop", allow or self.let_in.append, self._note)

    def _note(self, why: str, address: str) -> None:
        self.refused.append((why, address))

    def run(self, *guests: Callable[[int], object]) -> list[object]:
        """Serve while the guests call, one after the other, each in a thread; what each got, or its error."""

        async def serve() -> list[object]:
            is_ready = asyncio.Event()
            serving = asyncio.create_task(self.listener.serve(HOST, self.port, is_ready.set))
            await asyncio.wait_for(is_ready.wait(), deadline(10))
            got: list[object] = []
            for guest in guests:
                try:
                    got.append(await asyncio.wait_for(asyncio.to_thread(guest, self.port), deadline(10)))
                except KeysError as error:
                    got.append(str(error))
            await asyncio.wait_for(serving, deadline(10))
            return got

        return asyncio.run(serve())


def guest(code: str, public: str = "mine") -> Callable[[int], Paired]:
    return lambda port: call(HOST, port, Guest(code, public))


def test_a_code_is_digits_in_two_groups() -> None:
    assert re.fullmatch(r"\d{4}-\d{4}", new_code())


def test_a_client_that_knows_the_code_is_let_in_also_behind_one_that_leaves() -> None:
    def leave(port: int) -> None:
        socket.create_connection((HOST, port)).close()

    door = Door()
    assert door.run(leave, guest(CODE)) == [None, (ENGINE, "laptop")]
    assert door.let_in == ["mine"]
    assert door.refused == []


def test_a_wrong_code_is_noted_and_after_so_many_the_listener_ends() -> None:
    door = Door()
    with pytest.raises(KeysError):
        door.run(*[guest("9999-9999")] * TRIES)
    assert door.let_in == []
    assert [address for _, address in door.refused] == [HOST] * TRIES


def test_a_name_that_cannot_be_let_in_ends_the_listener_with_the_reason() -> None:
    def allow(public: str) -> None:
        raise KeysError("the allow-list is full")

    with pytest.raises(KeysError, match="allow-list is full"):
        Door(allow).run(guest(CODE))


def test_more_than_so_many_at_a_time_are_turned_away() -> None:
    idle: list[socket.socket] = []

    def crowd(port: int) -> None:
        idle.extend(socket.create_connection((HOST, port)) for _ in range(GUESTS))

    def disperse(port: int) -> None:
        for connection in idle:
            connection.close()

    door = Door()
    _, turned_away, _, *later = door.run(crowd, guest(CODE), disperse, guest(CODE))
    assert "too many attempts" in str(turned_away) or "reset" in str(turned_away).lower()
    assert later == [(ENGINE, "laptop")]


def test_nobody_listens() -> None:
    port = free_ports(1)
    with pytest.raises(KeysError, match="waits for the code while it is valid"):
        call(HOST, port, Guest(CODE, "mine"))


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server((HOST, 0)) as taken:
        door = Door()
        door.port = taken.getsockname()[1]
        with pytest.raises(KeysError, match="choose another --port"):
            asyncio.run(door.listener.serve(HOST, door.port, list))
