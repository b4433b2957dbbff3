"""The guardian's Unix socket in the run folder, by which the machine is stopped past the router.

A message is msgpack `[id: bin, why: str]`; the answer is `[number: int, late: [lane]]`, as soon as every lane is safe,
or after 0.2 s and the longest ramp of outputs, with the names of the lanes that are late. `[0, [text]]` refuses.
Callers are told apart by their user (SO_PEERCRED): root and the engine's own may, others where strangers may.
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
"""How long, in ns, a stop waits for the lanes before it is answered, beside the ramps of their outputs."""
LOOK_S = 0.001
"""How often, in s, the lanes are checked meanwhile."""
CONNECTIONS = 32
"""The most callers at a time; a new one replaces the oldest."""
LONGEST = 4096
"""The most bytes of a message."""
TURN = 16
"""Connections that are accepted at a time, so that a crowd does not keep the guardian from its lanes."""
_CREDENTIALS = struct.Struct("3i")


class _Wanted(NamedTuple):
    """A stop that waits for its answer."""

    caller: int
    number: int
    until: int


class StopSocket:
    """Serves `listener` and stops the machine of `panel`; `note` writes to the audit log.

    Other users' processes may call if `strangers_may`. `watch` and `unwatch` get the descriptors of callers, which are
    handled by `hear`. Nothing here waits.
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
        """Whether the policy lets strangers stop the machine."""
        self._callers: dict[int, tuple[socket.socket, int]] = {}
        """The callers, each with its user."""
        self._wanted: list[_Wanted] = []

    @property
    def due(self) -> float:
        """Return in how many s `answer` has to be called."""
        return LOOK_S if self._wanted else float("inf")

    def accept(self) -> None:
        """Accept new connections."""
        for _ in range(TURN):
            try:
                caller, _ = self._listener.accept()
            except OSError:  # no more connections, or no descriptors left
                return
            if len(self._callers) >= CONNECTIONS:
                self._drop(next(iter(self._callers)))
            caller.setblocking(False)
            credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self._callers[caller.fileno()] = caller, _CREDENTIALS.unpack(credentials)[1]
            self._watch(caller.fileno())

    def hear(self, fd: int, now: int) -> bool:
        """Read from a caller, or note that it is gone; return False if the descriptor is not a caller's."""
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
            self._stop(fd, user, message, now)
        else:
            self._drop(fd)
        return True

    def answer(self, now: int) -> None:
        """Answer the stops that are confirmed, or have waited long enough."""
        if not self._wanted:
            return
        late = self._panel.unconfirmed()
        over = [wanted for wanted in self._wanted if not late or wanted.until <= now]
        self._wanted = [wanted for wanted in self._wanted if late and wanted.until > now]
        for wanted in over:
            self._say(wanted.caller, (wanted.number, late))

    def close(self) -> None:
        """Close all connections."""
        for fd in list(self._callers):
            self._drop(fd)

    def _stop(self, fd: int, user: int, message: bytes, now: int) -> None:
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
        self._wanted.append(_Wanted(fd, number, now + CONFIRM_NS + int(self._panel.ramp_s * 1e9)))
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
