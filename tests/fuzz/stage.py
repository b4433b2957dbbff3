"""A router in a thread, and around it whoever it deals with: its clients, its workers and its supervisor."""

from __future__ import annotations

import atexit
import itertools
import os
import select
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import zmq

from taskengine import _fastpath
from taskengine.broker.binary import error_entry
from taskengine.broker.legacy_json import TaskFrames
from taskengine.broker.topics import data_lane
from taskengine.client.requests import Options
from taskengine.client.session import Session
from taskengine.client.task_future import settle
from taskengine.config.settings import Settings
from taskengine.errors import TaskEngineError
from taskengine.protocol.layouts import NO_ANSWER
from taskengine.protocol.messages import RequestKind, Stats, TaskInfo
from taskengine.router.router import Router
from taskengine.runtime.control import (
    PACKET_BYTES,
    ROUTER_REPORTS,
    KillWorker,
    Order,
    ReloadBegun,
    ReloadEnded,
    ReloadRequested,
    StartedWorker,
    WorkerDied,
    WorkersStarted,
    packets,
    read_report,
)
from taskengine.runtime.control_channel import ControlChannel, new_channel
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.runtime.memory import new_page
from taskengine.runtime.topology import HEARTBEAT, Topology
from taskengine.worker.worker import as_failure
from tests.engine import deadline

LANES = {"task_count": "", "arm.wave": "arm", "io.read": "io"}
NEVER_S = 3600.0
PATIENCE_S = 60.0
HELD_BACK = 3
"""Turns for which a worker holds back its answers."""
_COLUMNS = [[2, 4, 6], [3, 5, 7]]
_OPTIONS = Options(timeout=None)


def _count(a: Any, b: Any) -> Any:
    return (a + b) / 2


def _wave(*args: Any, **kwargs: Any) -> int:
    return len(args) + len(kwargs)


FUNCTIONS: dict[str, Callable[..., Any]] = {"task_count": _count, "arm.wave": _wave, "io.read": dict}


def _failure(name: str, error: BaseException | None) -> TaskEngineError:
    return as_failure(name, error or LookupError(name))


def _failed(head: bytes, i: int, position: int, error: BaseException | None) -> bytes:
    return error_entry(_failure("x", error))


def _resolve(head: bytes) -> list[Any]:
    return [FUNCTIONS.get(name) for name in msgspec.msgpack.decode(head)[1]]


def _foreign(format: int, head: bytes, first: int, ends: list[int], body: bytes, room: int) -> tuple[bytes, int]:
    """A data worker that remembers nothing."""
    return b"\xc0" * len(ends), 0


class Worker:
    """One of a lane, in a place, honest unless it is told otherwise."""

    def __init__(self, context: zmq.Context[Any], backplane: Topology, name: str, lane: str, place: int) -> None:
        self.name = name
        self.lane = lane
        self.place = place
        self._page = backplane.pages[place]
        self._batches: deque[bytes] = deque()
        self._held = 0
        self.has_lied = False
        """An earlier message of it may yet be taken for the answer to its next batch."""
        self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(backplane.address)
        self.socket.send_multipart(backplane.hello(name, lane, place))

    def receive(self) -> None:
        """Take the batches that there are."""
        while self.socket.poll(0):
            [batch] = self.socket.recv_multipart()
            if batch != HEARTBEAT:
                self._batches.append(batch)

    def hold(self) -> None:
        """Run nothing for a while."""
        self._held = HELD_BACK

    def work(self) -> None:
        """Run the batches."""
        self._held = max(self._held - 1, 0)
        while self._batches and not self._held:
            frames = TaskFrames(FUNCTIONS.get, _failure)
            batch = self._batches.popleft()
            answer = _fastpath.run_batch(batch, _resolve, _failed, _foreign, frames, self._page)
            self.socket.send(answer)

    def answer(self, said: bytes) -> None:
        """Answer the oldest batch with this; without one it is more than was asked for."""
        if self._batches:
            self._batches.popleft()
        self.say([said or NO_ANSWER])

    def say(self, frames: list[bytes]) -> None:
        """Say this, whatever is asked."""
        self.has_lied = True
        self.socket.send_multipart(frames)


class Stage:
    """Where it plays. What is sent by `ask` is answered once; `check` says so, and that the router still works."""

    def __init__(self) -> None:
        folder = tempfile.TemporaryDirectory()
        atexit.register(folder.cleanup)
        front, back = (f"ipc://{Path(folder.name, side)}" for side in ("front", "back"))
        self._context: zmq.Context[Any] = zmq.Context()
        self._backplane = Topology(back, b"token", None, [])
        settings = Settings(
            task_workers=1,
            data_workers=1,
            chunking_size=2,
            enable_stdout=False,
            heartbeat_interval=NEVER_S,
            heartbeat_limit=3 * NEVER_S,
        )
        lanes = settings.lanes_with(LANES.values())
        places = [*lanes, data_lane(0)]
        self._backplane.pages.extend(new_page() for _ in places)
        tasks = [TaskInfo(name, lane, "()", "", None, name == "io.read", "x") for name, lane in LANES.items()]
        self._control, theirs = new_channel()
        journal = LogBuffer(os.open(os.devnull, os.O_WRONLY), enabled=False)
        control = ControlChannel(theirs, journal.say)
        self._router = Router(settings, [front], [back], self._backplane, lanes, tasks, control, journal)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._client = self._connect(front)
        self._honest = self._connect(front)
        self._stranger = self._connect(back)
        self._session = Session("honest", front)
        self._names = itertools.count()
        self.workers = [self._hire(lane, place) for place, lane in enumerate(places)]
        self._owed = 0
        self.check()

    def _serve(self) -> None:
        try:
            self._router.serve()
        except BaseException as error:
            self._error = error

    def _connect(self, address: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        socket.connect(address)
        return socket

    def _hire(self, lane: str, place: int) -> Worker:
        name = f"W{next(self._names)}"
        self._tell(WorkersStarted([StartedWorker(name, place, os.getpid(), is_online=False)]))
        return Worker(self._context, self._backplane, name, lane, place)

    def ask(self, frames: list[bytes]) -> None:
        """Send as a client."""
        self._client.send_multipart(frames)
        self._owed += 1

    def intrude(self, frames: list[bytes]) -> None:
        """Send to the workers' port as nobody."""
        self._stranger.send_multipart(frames)

    def kill(self, name: str) -> None:
        """A worker dies, and another takes its place."""
        for place, worker in enumerate(self.workers):
            if worker.name == name:
                worker.socket.close()
                self._tell(WorkerDied(name))
                self.workers[place] = self._hire(worker.lane, worker.place)

    def _tell(self, order: Order) -> None:
        for packet in packets(order):
            self._control.send(packet)

    def _handle_control(self) -> None:
        """As the supervisor."""
        while select.select([self._control], [], [], 0)[0]:
            report = read_report(self._control.recv(PACKET_BYTES), ROUTER_REPORTS)
            if isinstance(report, KillWorker):
                self.kill(report.worker)
            elif isinstance(report, ReloadRequested):
                self._tell(ReloadBegun())
                self._tell(ReloadEnded(""))

    def _turn(self) -> None:
        """Everybody does what there is to do, or waits until there is."""
        if self._error is not None:
            raise self._error
        poller = zmq.Poller()
        for socket in (self._client, self._honest, *(worker.socket for worker in self.workers)):
            poller.register(socket, zmq.POLLIN)
        poller.register(self._control.fileno(), zmq.POLLIN)
        poller.poll(1)
        self._handle_control()
        for worker in self.workers:
            worker.receive()
            worker.work()
        while self._client.poll(0):
            self._client.recv_multipart()
            self._owed -= 1
        while self._honest.poll(0):
            settle(self._session.receive(self._honest.recv_multipart()))

    def check(self) -> None:
        """An honest package is answered, then everything else is, and the router's counts agree.

        Workers that lied are replaced before: who is given an answer cannot know that it is another's.
        """
        for worker in [worker for worker in self.workers if worker.has_lied]:
            self.kill(worker.name)
        # the router may hear of the package before it hears of the deaths
        self._play(lambda: all(self._router._workers.is_here(worker.name) for worker in self.workers), "honest workers")
        results: Future[Any] = Future()
        self._honest.send_multipart(self._session.mapped("task_count", _COLUMNS, results, _OPTIONS).frames)
        self._play(results.done, "an honest package")
        assert results.result() == [2.5, 4.5, 6.5]
        self._play(lambda: self._owed <= 0, "all replies")
        stats: Future[Any] = Future()
        self._honest.send_multipart(self._session.request(RequestKind.STATS, stats, _OPTIONS).frames)
        self._play(stats.done, "the counts")
        counted = msgspec.convert(stats.result(), Stats)
        assert counted.in_flight == 0
        assert counted.accepted == counted.answered
        assert self._owed == 0, "more replies than messages"

    def _play(self, is_over: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + deadline(PATIENCE_S)
        while not is_over():
            self._turn()
            assert time.monotonic() < end, f"waited for {what}"
