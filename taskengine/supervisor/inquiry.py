"""An inquiry: a function in a process of its own, which sends one answer."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

from taskengine._descendants import end_descendants
from taskengine.runtime.descendants import orphans
from taskengine.security.identity import Identity
from taskengine.supervisor.forked_process import FORK, end_soon, ending, set_up_process

_MAX_ANSWER_BYTES = 1 << 26
"""The most bytes of the answer to an inquiry."""
_ANSWER_S = 1.0
"""How long an answer may take from its first byte to its last."""


def _ask(function: Callable[[Connection], None], identity: Identity | None, answer: Connection) -> None:
    set_up_process("ask", identity, [answer.fileno()])
    function(answer)
    end_soon()


class Inquiry:
    """Runs `function(connection)` in a process of its own, which sends one answer; `connection` is readable then.

    The process runs as `identity`, or as our own user.
    """

    def __init__(self, function: Callable[[Connection], None], identity: Identity | None = None) -> None:
        self._is_closed = False
        self.connection, theirs = FORK.Pipe(duplex=False)
        self._process = FORK.Process(target=_ask, args=(function, identity, theirs))
        self._process.start()
        self._pid = self._process.pid or 0
        orphans.add(self._pid)
        theirs.close()

    def answer(self) -> bytes:
        """Return the answer. Raises EOFError if the process ended without one, or sent something else."""
        try:
            end = time.monotonic() + _ANSWER_S
            size = int.from_bytes(self._read(4, end))
            if size > _MAX_ANSWER_BYTES:
                raise EOFError(f"an answer has at most {_MAX_ANSWER_BYTES} bytes, not {size}")
            return self._read(size, end)
        finally:
            self.close()

    def _read(self, size: int, end: float) -> bytes:
        """Return `size` bytes, which have to come before the time `end`: a module may write into the pipe too."""
        data = bytearray()
        while len(data) < size:
            if not wait([self.connection], max(0.0, end - time.monotonic())):
                raise EOFError("the process wrote something else where its answer was expected")
            more = os.read(self.connection.fileno(), size - len(data))
            if not more:
                raise EOFError(self._ending())
            data += more
        return bytes(data)

    def _ending(self) -> str:
        """Return how the process ended, if it has."""
        self._process.join(_ANSWER_S)
        code = self._process.exitcode
        return "it wrote no answer" if code is None else ending(code)

    def close(self) -> None:
        """Kill the process and those that it has started, answered or not. May be called twice."""
        if not self._is_closed:
            self._is_closed = True
            self.connection.close()
            end_descendants(self._pid)
            self._process.kill()
            self._process.join()
            orphans.remove(self._pid, time.monotonic())


def ask(
    function: Callable[[Connection], None],
    timeout: float,
    stop: socket.socket | None = None,
    identity: Identity | None = None,
) -> bytes:
    """Make an `Inquiry` and return its answer, within `timeout` s.

    Raises EOFError if it ended without an answer, TimeoutError if it took too long, InterruptedError if `stop` became
    readable.
    """
    inquiry = Inquiry(function, identity)
    try:
        ready = wait([inquiry.connection, *([stop] if stop else [])], timeout)
        if inquiry.connection in ready:
            return inquiry.answer()
        if ready:
            raise InterruptedError("told to stop")
        raise TimeoutError(f"no answer in {timeout:g} s")
    finally:
        inquiry.close()
