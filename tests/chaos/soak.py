"""`python -m tests.chaos.soak`: ask the same of an engine for long, and see that nothing grows."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import zmq
from rich.console import Console

from bench import table
from bench.processes import pss, resident
from bench.table import Cell, Table
from taskengine import Client, aio
from tests.chaos import tasks
from tests.chaos.growth import Sample, broken, growth, warm_after
from tests.engine import Engine, alive, children, deadline
from tests.integration.seedclient import SeedClient, meta, task

PAUSE_S = 0.005
OWN = "the clients"
_TIMEOUT_S = deadline(20.0)

Samples = dict[str, list[Sample]]


def call(client: Client) -> None:
    """Single calls, queued ones, packages of values and of columns."""
    assert client.call("task_count", 2, 3) == 2.5
    assert client.map("task_count", range(200), range(200)) == list(range(200))
    assert client.submit("task_echo", "x").result(_TIMEOUT_S) == "x"
    columns = numpy.arange(1000.0)
    assert (client.map("task_count", columns, columns) == columns).all()
    assert len(client.call("chaos.ping", 100_000)) == 100_000
    client.send("task_count", 1, 1)


def publish(client: Client) -> None:
    """Publications, subscribed to, and read again."""
    now = time.monotonic()
    client.publish("chaos.soak", now)
    assert client.latest("chaos.soak") == now
    with client.subscribe("chaos.soak") as feed:
        assert feed.get(_TIMEOUT_S).value == now


def reconnect(client: Client) -> None:
    """Clients that come and go, on both wires; one of them leaves without its reply."""
    with Client(client.address, timeout=_TIMEOUT_S) as other:
        assert other.call("task_count", 2, 3) == 2.5
    with SeedClient(client.address) as seed:
        assert seed.ask(meta(), *[task("task_count", n, n) for n in range(30)])[0]["type"] == "ACK"
    with zmq.Context() as context, context.socket(zmq.DEALER) as leaver:
        leaver.connect(client.address)
        leaver.send_multipart([b"", meta(), *[task("task_sleep", 0.001)] * 20])
    asyncio.run(_reconnect(client.address))


async def _reconnect(address: str) -> None:
    async with aio.Client(address, timeout=_TIMEOUT_S) as client:
        assert await asyncio.gather(*(client.call("task_count", n, n) for n in range(10))) == list(range(10))


class Steady:
    """Clients that each repeat one thing, until `end`; `failures` tells what went wrong, `rounds` how often it went."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.rounds: dict[str, int] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(what,), daemon=True) for what in (call, call, publish, reconnect)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, what: Callable[[Client], None]) -> None:
        try:
            with Client(self._address, timeout=_TIMEOUT_S) as client:
                while not self._stop.wait(PAUSE_S):
                    what(client)
                    self.rounds[what.__name__] = self.rounds.get(what.__name__, 0) + 1
        except Exception as error:
            self.failures.append(f"{what.__name__} failed: {error!r}")

    def end(self) -> None:
        """Stop all clients."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S)


def watch(engine: Engine, steady: Steady, seconds: float) -> tuple[Samples, list[str]]:
    """Look at all processes until the time is over or something fails; what was seen since they were warm."""
    processes = {f"{name.strip()} {pid}": pid for pid, name in sorted(children(engine.process.pid).items())}
    processes = {"supervisor": engine.process.pid, **processes, OWN: os.getpid()}
    samples: Samples = {process: [] for process in processes}
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds and not steady.failures:
        ended = [process for process, pid in processes.items() if not alive(pid)]
        if ended:
            return samples, [f"{process} ended by itself" for process in ended]
        if passed >= warm_after(seconds):
            for process, pid in processes.items():
                samples[process].append(sample(pid))
        time.sleep(max(0.2, seconds / 600))
    return samples, steady.failures


def sample(pid: int) -> Sample:
    """Return the present figures of a process."""
    files, threads = (len(os.listdir(f"/proc/{pid}/{what}")) for what in ("fd", "task"))
    return Sample(pss(pid), resident(pid), files, threads, zombies(pid))


def zombies(pid: int) -> int:
    """How many children of a process have ended and were not asked about."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        found += state == "Z" and int(parent) == pid
    return found


def show(samples: Samples, steady: Steady, seconds: float, console: Console) -> None:
    """Print what each process had, and has."""
    rows: list[list[Cell]] = []
    for process, taken in samples.items():
        if taken:
            before, after = growth(taken)
            memory = (before.pss, after.pss, before.rss, after.rss)
            numbers = [f"{before[place]} → {after[place]}" for place in (2, 3, 4)]
            rows.append([process, *(f"{size / 2**20:.2f}" for size in memory), *numbers])
    heads = ["MiB", "PSS warm", "PSS end", "RSS warm", "RSS end", "open files", "threads", "zombies"]
    rounds = ", ".join(f"{what} {count}" for what, count in sorted(steady.rounds.items()))
    note = f"Warm after {warm_after(seconds):g} s. Rounds: {rounds}."
    table.show(Table(name="", title=f"{seconds:g} s of the same", note=note, heads=heads, rows=rows), console)


def main() -> int:
    """The exit code: 0 nothing grew, 1 something did."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long")
    seconds = parser.parse_args().seconds
    console = Console()
    with Engine(tasks=f"taskengine.tasks,{tasks.__file__}", enable_stdout="false") as engine:
        steady = Steady(engine.address)
        samples, failures = watch(engine, steady, seconds)
        steady.end()
    show(samples, steady, seconds, console)
    found = [*dict.fromkeys([*failures, *steady.failures]), *broken(samples)]
    for line in found:
        console.print(f"BROKEN: {line}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    if not found:
        console.print("Nothing grew.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
