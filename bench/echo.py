"""Raw libzmq as a system: a router and workers that pass messages on in C, and nothing else, in processes of their own.

It says what the transport alone costs here. They run under the scheduling policy of the engine's processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import zmq

from bench import _echo
from bench.span import RESULT, Job, WrongResult
from bench.system import CHUNK, WORKERS

TASK_BYTES = 16
"""About the bytes of a task, and of its result, on the wire; a chunk of 50 is 800 bytes."""
CALL_BYTES = 64
START_S = 30.0
_PR_SET_PDEATHSIG = 1
_spawn = multiprocessing.get_context("spawn")


class EchoFailed(Exception):
    """The processes of the echo did not start."""


class Echo:
    """The echo over `transport`, "ipc" or "tcp", under `policy`; a package leaves as messages of `chunk` tasks' bytes.

    Raises EchoFailed.
    """

    def __init__(self, name: str, transport: str, policy: int, chunk: int = CHUNK) -> None:
        self.name = name
        self._chunk = chunk
        self._call = bytes(CALL_BYTES)
        self._folder = tempfile.TemporaryDirectory()  # nobody else may look into it
        ours, theirs = _spawn.Pipe()
        addresses = [f"ipc://{self._folder.name}/{end}" for end in ("frontend", "backend")]
        if transport == "tcp":
            addresses = ["tcp://127.0.0.1:*"] * 2
        router = _spawn.Process(target=_route, args=(addresses, theirs, policy), daemon=True)
        self._processes = [router]
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        try:
            router.start()
            frontend, backend = self._hear(ours)
            for _ in range(WORKERS):
                worker = _spawn.Process(target=_work, args=(backend, policy), daemon=True)
                self._processes.append(worker)
                worker.start()
            self._hear(ours)
        except BaseException:
            self.close()
            raise
        self._socket.connect(frontend)
        self._handle = int(self._socket.underlying)
        self.one()

    def _hear(self, control: Connection) -> Any:
        if not control.poll(START_S):
            raise EchoFailed(f"{self.name}: its processes did not start within {START_S:g} s")
        return control.recv()

    def package(self, tasks: int) -> Job:
        messages = -(-tasks // self._chunk)
        payload = bytes(self._chunk * TASK_BYTES)

        def results(received: int) -> Sequence[Any]:
            return [RESULT] * tasks if received == messages * len(payload) else []

        return Job(lambda: _echo.exchange(self._handle, payload, messages), results)

    def one(self) -> Any:
        return RESULT if _echo.exchange(self._handle, self._call, 1) == CALL_BYTES else None

    def offered(self, rate: float, seconds: float, tasks: int = 1) -> list[float]:
        """Latencies in s of messages of so many tasks' bytes, `rate` a second. Raises WrongResult."""
        payload = bytes(max(CALL_BYTES, tasks * TASK_BYTES))
        fd = int(self._socket.getsockopt(zmq.FD))
        latencies = _echo.offer(self._handle, fd, payload, rate, max(1, int(rate * seconds)), START_S)
        if min(latencies) < 0:
            raise WrongResult(f"{self.name}: {sum(latency < 0 for latency in latencies)} messages did not come back")
        return latencies

    def close(self) -> None:
        for process in self._processes:
            if process.pid:
                process.terminate()
                process.join()
        self._socket.close()
        self._context.term()
        self._folder.cleanup()


def _settle_in(policy: int) -> None:
    """As the engine's children do: under its policy, and gone with the process that started them."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy, os.sched_param(0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _route(addresses: list[str], control: Connection, policy: int) -> None:
    """The router's process. Tells its addresses, then that all workers are there."""
    _settle_in(policy)
    context = zmq.Context()
    sockets: list[zmq.Socket[bytes]] = [context.socket(zmq.ROUTER), context.socket(zmq.DEALER)]
    for socket, address in zip(sockets, addresses, strict=True):
        socket.sndhwm = socket.rcvhwm = 0
        socket.bind(address)
    control.send([socket.getsockopt_string(zmq.LAST_ENDPOINT) for socket in sockets])
    for _ in range(WORKERS):
        sockets[1].recv_multipart()
    control.send("online")
    _echo.route(*(int(socket.underlying) for socket in sockets))


def _work(address: str, policy: int) -> None:
    """A worker's process."""
    _settle_in(policy)
    socket: zmq.Socket[bytes] = zmq.Context().socket(zmq.DEALER)
    socket.sndhwm = socket.rcvhwm = 0
    socket.connect(address)
    socket.send(b"HELLO")
    _echo.work(int(socket.underlying))
