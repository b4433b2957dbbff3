"""Pairing by a short code: a listener on the engine's machine, open while the code is valid, and its client.

Both sides use `pake`; the client's secret key never leaves its machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable

from taskengine.errors import KeysError
from taskengine.security.pake import DIGITS, LONGEST_LINE, Guest, Host, PairingCode, refusal

GUEST_S = 10.0
"""How long a connection may take, in s."""
GUESTS = 8
"""Connections at a time."""


def new_code() -> str:
    """Make a random code."""
    text = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"
    return f"{text[: DIGITS // 2]}-{text[DIGITS // 2 :]}"


LEAVES = (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError)
"""Errors of a connection that sends too little, too much, or leaves; the next one may know the code."""


class PairingListener:
    """Waits for one client that knows the code.

    The client is told `engine` and `name`. `allow` takes its public key and raises KeysError if it cannot be let in.
    `note` is called for each failed attempt, with the reason and the address.
    """

    def __init__(
        self, code: str, engine: str, name: str, allow: Callable[[str], None], note: Callable[[str, str], object]
    ) -> None:
        self._code = PairingCode(code, time.monotonic())
        self._engine, self._name = engine, name
        self._allow, self._note = allow, note
        self._guests = 0
        self._over = asyncio.Event()
        self._problem: KeysError | None = None

    async def serve(self, host: str, port: int, ready: Callable[[], object]) -> None:
        """Serve at `host` and `port` until a client is let in; `ready` is called once connections are accepted.

        Raises KeysError if the code expires or the port cannot be opened.
        """
        try:
            server = await asyncio.start_server(self._receive, host, port, limit=LONGEST_LINE)
        except OSError as error:
            raise KeysError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
        try:
            ready()
            await asyncio.wait_for(self._over.wait(), self._code.end - time.monotonic())
        except TimeoutError:
            self._code.check(self._code.end)
        finally:
            server.close()
        if self._problem is not None:
            raise self._problem

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._guests >= GUESTS:
            writer.close()
            return
        self._guests += 1
        try:
            with contextlib.suppress(*LEAVES):
                async with asyncio.timeout(GUEST_S):
                    await self._talk(reader, writer)
        finally:
            self._guests -= 1
            writer.close()
            if not self._code.tries:
                self._over.set()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, tries = Host(self._code), self._code.tries
        try:
            writer.write(host.begin(await reader.readuntil(), time.monotonic()))
            await writer.drain()
            tries = self._code.tries
            public = host.admit(await reader.readuntil(), time.monotonic())
            self._let_in(public)
            writer.write(host.welcome(self._engine, self._name))
        except KeysError as error:
            if self._code.tries < tries:
                self._problem = error
                self._note(str(error), str(writer.get_extra_info("peername")[0]))
            writer.write(refusal(error))
        await writer.drain()

    def _let_in(self, public: str) -> None:
        self._problem = None
        try:
            self._allow(public)
        except KeysError as error:
            self._problem = error
            raise


def call(host: str, port: int, guest: Guest) -> tuple[str, str]:
    """Pair with the engine whose listener is there; return its public key and our name. Raises KeysError."""
    try:
        with socket.create_connection((host, port), GUEST_S) as connection, connection.makefile("rb") as lines:
            connection.sendall(guest.hello())
            connection.sendall(guest.show(_line_of(lines.readline(LONGEST_LINE))))
            return guest.accept(_line_of(lines.readline(LONGEST_LINE)))
    except OSError as error:
        why = error.strerror or "it does not answer"
        raise KeysError(
            f"{host}:{port}: {why}; `taskengine keys pair NAME` there waits for the code while it is valid"
        ) from None


def _line_of(line: bytes) -> bytes:
    if not line.endswith(b"\n"):
        raise KeysError("the engine has closed the connection: too many attempts, or the code has expired")
    return line
