"""`python -m tests.chaos`: do everything that hurts to a real engine, and judge what its clients were told."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from rich.console import Console

from taskengine.supervisor.supervisor import ROUTER_PATIENCE
from tests.chaos import tasks
from tests.chaos.bare_reader import BareReader
from tests.chaos.clients import ANSWER_S, AsyncClient, SyncClient
from tests.chaos.dealers import PackedClient, SeedClient
from tests.chaos.deeds import Chaos, counts
from tests.chaos.ledger import Book, judge
from tests.chaos.plan import Pace, plan
from tests.chaos.readers import AsyncStreamClient, StreamClient
from tests.chaos.readings import unclosed, without_closings
from tests.chaos.report import Report, show
from tests.engine import Engine, alive, deadline, wait_until

TASK_WORKERS, LANE_WORKERS, DATA_WORKERS = 3, 4, 1
LANES = "turn=2,beside=1x20"
NORMAL = {"router": 1, "task": TASK_WORKERS + LANE_WORKERS, "data": DATA_WORKERS}
BESIDE = ("chaos.beside", "chaos.beside.again", "chaos.stream.beside")
"""Tasks that run beside each other in one worker."""
CLOSING_S = 2.0
"""How soon the generators are closed after the last of the clients has ended."""
GONE_S = 2.0
"""How soon nothing may be left of an engine whose supervisor was killed."""


class Offering(Protocol):
    """A client that offers tasks until it is told to stop."""

    book: Book

    def run(self, stop: threading.Event) -> None: ...


class Offerings:
    """Clients, each in a thread of its own."""

    def __init__(self, clients: Sequence[Offering]) -> None:
        self._stop = threading.Event()
        self.books = [client.book for client in clients]
        self.failures: list[str] = []
        self._threads = {
            client.book.client: threading.Thread(target=self._run, args=(client,), daemon=True) for client in clients
        }
        for thread in self._threads.values():
            thread.start()

    def end(self) -> list[str]:
        """Tell them to stop; the names of those that hang."""
        self._stop.set()
        for thread in self._threads.values():
            thread.join(ANSWER_S + deadline(10.0))
        return [name for name, thread in self._threads.items() if thread.is_alive()]

    def _run(self, client: Offering) -> None:
        try:
            client.run(self._stop)
        except Exception as error:
            self.failures.append(f"client {client.book.client} failed: {error!r}")


@contextmanager
def ledger_folder() -> Iterator[Path]:
    """A folder for what the tasks write down, which the engine's processes inherit the name of."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[tasks.LEDGER] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[tasks.LEDGER]


def run_chaos(seconds: float, seed: int, pace: Pace | None = None) -> Report:
    """Hurt an engine for so many seconds."""
    settings: dict[str, Any] = {"task_workers": TASK_WORKERS, "data_workers": DATA_WORKERS, "enable_stdout": "false"}
    settings |= {"heartbeat_interval": 0.2, "heartbeat_limit": deadline(1.0), "lanes": LANES}
    with ledger_folder() as folder, Engine(tasks=tasks.__file__, **settings) as engine:
        wait_until(lambda: counts(engine) == NORMAL, 20.0, "all processes")
        chaos = Chaos(engine, seed, NORMAL)
        clients = Offerings(
            [
                SyncClient(engine.address, "SYNC-A", seed),
                SyncClient(engine.address, "SYNC-B", seed),
                AsyncClient(engine.address, "ASYNC", seed),
                SeedClient(engine.address, "SEED", seed),
                PackedClient(engine.address, "PACKED", seed),
                StreamClient(engine.address, "STREAM", seed),
                AsyncStreamClient(engine.address, "STREAMS", seed),
                BareReader(engine.address, "BARE", seed),
            ]
        )
        chaos.work_off(plan(seed, seconds, pace), seconds)
        hung = clients.end()
        chaos.crowd.close()
        found = counts(engine)
        books = [*clients.books, chaos.crowd.book]
        open_streams = _await_closing(engine, folder, books)
        left = kill_supervisor(engine)
        runs = written(folder)
    judgement = judge(
        books,
        without_closings(runs.values()),
        router_deaths=chaos.killed_routers,
        notice_s=deadline(2.0),
        frozen_s=ROUTER_PATIENCE * float(settings["heartbeat_limit"]) + 2 * settings["heartbeat_interval"],
        hung=hung,
        unclosed=open_streams,
        in_order="chaos.lane",
        beside=BESIDE,
    )
    others = [
        *clients.failures,
        *chaos.broken(),
        *([f"processes are {found} at the end, not {NORMAL}"] if found != NORMAL else []),
        *([f"left {deadline(GONE_S):g} s after the supervisor's death: {left}"] if left else []),
    ]
    return Report(
        seconds=seconds,
        seed=seed,
        done=dict(chaos.done),
        deaths=dict(chaos.watch.deaths),
        worker_recoveries_s=sorted(chaos.watch.recoveries),
        router_recoveries_s=sorted(chaos.router_recoveries),
        judgement=judgement,
        broken=judgement.broken + others,
    )


def written(folder: Path) -> dict[int, list[str]]:
    """Return what each task process has written into the tasks' ledger, by pid."""
    return {int(path.name): path.read_text().split() for path in sorted(folder.iterdir())}


def _await_closing(engine: Engine, folder: Path, books: Sequence[Book]) -> list[str]:
    """Return the generators that are not closed CLOSING_S after their clients have ended, though they could be."""
    streams = {reading.id for book in books for reading in book.readings}
    beside = {offer.id for book in books for offer in book.offers.values() if offer.task in BESIDE}
    end = time.monotonic() + deadline(CLOSING_S)
    while (found := unclosed(written(folder), streams, beside, engine.pids("task"))) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def kill_supervisor(engine: Engine) -> list[int]:
    """End an engine as nothing can prepare for; the processes that are left GONE_S later."""
    pids = engine.pids()
    engine.process.kill()
    engine.process.wait()
    try:
        wait_until(lambda: not any(map(alive, pids)), GONE_S, "the end of the children")
    except AssertionError:
        return [pid for pid in pids if alive(pid)]
    return []


def main() -> int:
    """The exit code: 0 all guarantees held, 1 one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the order of what is done")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    options = parser.parse_args()
    print(f"chaos: seed {options.seed}, {options.seconds:g} s", flush=True)
    report = run_chaos(options.seconds, options.seed)
    show(report, Console())
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return 1 if report.broken else 0
