"""The guardian's Unix socket in the run folder, by which the machine is stopped past the router.

A message is msgpack `[id: bin, why: str]`; the answer is `[number: int, late: [lane]]`, as soon as every lane is safe,
or after 0.2 s with the names of the lanes that are late. `[0, [text]]` refuses. Callers are told apart by their user
(SO_PEERCRED): root and the engine's own may, others where strangers may.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from .shared_state import SharedState

CONFIRM_NS = 200_000_000
"""How long a stop waits for the lanes at most before it is answered."""
LOOK_S = 0.001
"""How often the lanes are looked at meanwhile."""
CONNECTIONS = 32
"""Callers at a time; the one that has been here longest goes for another."""
LONGEST = 4096
"""Bytes of a message."""
TURN = 16
"""Connections that are taken at a time, so that a crowd does not keep the guardian from its lanes."""
_CREDENTIALS = struct.Struct("3i")


class _Wanted(NamedTuple):
    """A stop that waits for its answer."""

    caller: int
    number: int
    until: int


class StopSocket:
    """Serves `listener` and stops what `panel` is of; `note` tells the audit log, and strangers may where told so.

    `watch` and `unwatch` are given the descriptors of callers, which `hear` is for. Nothing here waits.
    """

    def __init__(
        self,
        listener: socket.socket,
        panel: SharedState,
        note: Callable[..., object],
        watch: Callable[[int], object],
        unwatch: Callable[[int], object],
        *,
        strangers_may: bool,
    ) -> None:
        self._listener = listener
        self._panel = panel
        self._note = note
        self._watch = watch
        self._unwatch = unwatch
        self.strangers_may = strangers_may
        """So the policy says."""
        self._callers: dict[int, tuple[socket.socket, int]] = {}
        """Each with its user."""
        self._wanted: list[_Wanted] = []

    @property
    def due(self) -> float:
        """In how many s `answer` wants to be called."""
        return LOOK_S if self._wanted else float("inf")

    def accept(self) -> None:
        """Take who wants to connect."""
        for _ in range(TURN):
            try:
                caller, _ = self._listener.accept()
            except OSError:  # there is nobody any more, or there are no descriptors left
                return
            if len(self._callers) >= CONNECTIONS:
                self._drop(next(iter(self._callers)))
            caller.setblocking(False)
            credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self._callers[caller.fileno()] = caller, _CREDENTIALS.unpack(credentials)[1]
            self._watch(caller.fileno())

    def hear(self, fd: int, now: int) -> bool:
        """A caller has said something, or is gone; False where this is no caller's descriptor."""
        if fd not in self._callers:
            return False
        caller, user = self._callers[fd]
        try:
            message = caller.recv(LONGEST)
        except BlockingIOError:
            return True
        except OSError:
            message = b""
        if message:
            self._obey(fd, user, message, now)
        else:
            self._drop(fd)
        return True

    def answer(self, now: int) -> None:
        """Answer the stops that are confirmed, or have waited for long enough."""
        if not self._wanted:
            return
        late = self._panel.unconfirmed()
        over = [wanted for wanted in self._wanted if not late or wanted.until <= now]
        self._wanted = [wanted for wanted in self._wanted if late and wanted.until > now]
        for wanted in over:
            self._say(wanted.caller, (wanted.number, late))

    def close(self) -> None:
        """Let go of all callers."""
        for fd in list(self._callers):
            self._drop(fd)

    def _obey(self, fd: int, user: int, message: bytes, now: int) -> None:
        if user not in (0, os.geteuid()) and not self.strangers_may:
            self._note("refused", uid=user, call="STOP")
            self._say(fd, (0, [f"the engine's policy does not let user {user} stop the machine"]))
            return
        try:
            id, why = msgspec.msgpack.decode(message, type=tuple[bytes, str])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._say(fd, (0, [f"a stop is an id and why, as msgpack: {error}"]))
            return
        is_news = not (id and self._panel.knows(id))
        number = self._panel.stop(now, by=f"user {user}", why=why, id=id)
        if is_news:
            self._note("stopped", uid=user, why=why[:LONGEST])
        self._wanted = [wanted for wanted in self._wanted if wanted.caller != fd]
        self._wanted.append(_Wanted(fd, number, now + CONFIRM_NS))
        self.answer(now)

    def _say(self, fd: int, answer: tuple[int, Iterable[str]]) -> None:
        caller = self._callers.get(fd)
        if caller is not None:
            with contextlib.suppress(OSError):  # it does not read, or is gone
                caller[0].send(msgspec.msgpack.encode(answer))

    def _drop(self, fd: int) -> None:
        caller, _ = self._callers.pop(fd)
        self._wanted = [wanted for wanted in self._wanted if wanted.caller != fd]
        self._unwatch(fd)
        caller.close()
