"""A router in a thread that answers as a test wants, for what no real engine does at will."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import zmq

from taskengine import _fastpath
from taskengine.errors import TaskEngineError, to_wire
from taskengine.protocol.messages import NO_SERIAL, Info, Reply, Request, RequestKind, decode_request, encode_reply
from tests.engine import wait_until

INFO = Info(2, 0.005, 10, 2, [], 1, ["clock", "stop"])
BOOT = 7


class Heard(NamedTuple):
    """A request, what stood behind its head, and the engine's clock when it came."""

    request: Request
    body: list[bytes]
    clock: int


Answer = Callable[[Heard], Any]
"""The answer to a request: a value, an error, or SILENCE."""
SILENCE = object()


class Listener:
    """Listens at `address`; INFO is answered by `info`, all else by `answer`, a task's value for each task.

    `shift` is by how much its clock is ahead of ours, in ns; `stop` the number of the stop in force.
    """

    def __init__(self, answer: Answer = lambda heard: None, info: Any = INFO, port: int = 0, shift: int = 0) -> None:
        self.heard: list[Heard] = []
        self.answer = answer
        self.info = info
        self.stop = 0
        self.shift = shift
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        if port:
            self._socket.bind(f"tcp://127.0.0.1:{port}")
        else:
            port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.address = f"tcp://127.0.0.1:{port}"
        self._closing = threading.Event()
        self._failure: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def requests(self, kind: RequestKind = RequestKind.PACKAGE) -> list[Request]:
        """The requests of this kind so far."""
        return [heard.request for heard in self.heard if heard.request.kind == kind]

    def names(self) -> list[str]:
        """Return the calls so far."""
        return [name for request in self.requests() for name in request.names]

    def await_names(self, *names: str) -> None:
        """Wait until just these were called."""
        wait_until(lambda: len(self.names()) >= len(names), 10, f"calls of {names}")
        assert self.names() == [*names]

    def close(self) -> None:
        """Listen no longer. Raises what went wrong in the thread."""
        self._closing.set()
        self._thread.join()
        self._socket.close()
        self._context.term()
        self._failure.result(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def clock(self) -> int:
        """Return the time of its clock."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self.shift

    def _serve(self) -> None:
        try:
            while not self._closing.is_set():
                if self._socket.poll(10):
                    self._take(self._socket.recv_multipart())
            self._failure.set_result(None)
        except BaseException as error:
            self._failure.set_exception(error)

    def _take(self, frames: list[bytes]) -> None:
        route, head, *body = frames
        heard = Heard(decode_request(head), body, self.clock())
        self.heard.append(heard)
        value = self.info if heard.request.kind == RequestKind.INFO else self.answer(heard)
        if value is SILENCE:
            return
        serial, count = heard.request.serial, len(body[0]) // 4 if heard.request.kind == RequestKind.PACKAGE else 1
        if isinstance(value, TaskEngineError):
            is_unreadable = isinstance(value, Unreadable)
            reply = Reply(NO_SERIAL if is_unreadable else serial, 0, error=to_wire(value))
            data = b""
        else:
            clock, boot = (
                (self.clock(), BOOT) if isinstance(self.info, Info) and "clock" in self.info.capabilities else (0, 0)
            )
            reply = Reply(serial, count, heard.request.reply, None, 0, clock, boot, self.stop)
            data = _fastpath.encode(msgspec.to_builtins(value)) * count
        self._socket.send_multipart([route, encode_reply(reply), data])


class Unreadable(TaskEngineError):
    """As 0.1.0 answers a kind of request that it does not know."""

    code = 9


def unreadable() -> Unreadable:
    """Such a refusal."""
    return Unreadable("head: Invalid enum value")
