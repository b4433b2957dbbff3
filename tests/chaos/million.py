"""`python -m tests.chaos.million`: a million tasks at once from a client that reads no reply, and another beside it."""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from concurrent.futures import Future
from typing import Any, NamedTuple

import zmq
from rich.console import Console

from bench import table
from bench.processes import resident
from bench.table import Cell, Table
from taskengine import Client
from taskengine.client.calls import Call
from taskengine.client.requests import Options
from taskengine.client.session import Session
from tests.chaos.hostile import calls, p99
from tests.engine import Engine, deadline

TASKS = 10**6
MEMORY_BYTES, P99_TIMES = 64 * 2**20, 2.0
WATCH_S = 0.01


class Report(NamedTuple):
    """The other client's calls in s before and beside it, and how much the router grew."""

    before: list[float]
    beside: list[float]
    grown: int
    is_same: bool


class Peak:
    """The most memory that a process has until `end`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.rest = self.most = resident(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_S):
            self.most = max(self.most, resident(self._pid))

    def end(self) -> int:
        """By how much it grew."""
        self._stop.set()
        self._thread.join()
        return self.most - self.rest


def calls_for(client: Client, seconds: float) -> list[float]:
    """Call without pause, and how long each took, in s."""
    end = time.monotonic() + seconds
    [took] = calls([client], lambda _: time.monotonic() >= end)
    return took


def run_million(tasks: int, size: int, seconds: float) -> Report:
    """Offer so many tasks in packages of `size`, and read nothing."""
    with (
        Engine(enable_stdout="false", chunking_size=50) as engine,
        Client(engine.address, name="OTHER", timeout=deadline(60.0)) as client,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as stalled,
    ):
        [router] = engine.pids("router")
        before = calls_for(client, seconds)
        stalled.sndhwm, stalled.rcvhwm, stalled.linger = 0, 1, 0
        stalled.connect(engine.address)
        futures: list[Future[Any]] = [Future() for _ in range(size)]
        package: list[Call] = [("task_count", (2, 3), {})] * size
        frames = Session("STALLED", engine.address).package(package, futures, Options(), each=True).frames
        peak = Peak(router)
        for _ in range(tasks // size):
            stalled.send_multipart(frames)
        beside = calls_for(client, seconds)
        return Report(before, beside, peak.end(), engine.pids("router") == [router])


def broken(report: Report) -> list[str]:
    """Return the limits that were broken, whatever the machine."""
    return [
        *([f"the router grew by {report.grown / 2**20:.1f} MiB"] * (report.grown > MEMORY_BYTES)),
        *(["the router ended"] * (not report.is_same)),
    ]


def main() -> int:
    """The exit code: 0 all held, 1 something did not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.million", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the other client calls, twice")
    seconds = parser.parse_args().seconds
    console = Console()
    found: list[str] = []
    rows: list[list[Cell]] = []
    for size in (1000, 100):
        report = run_million(TASKS, size, seconds)
        times = p99(report.beside) / p99(report.before)
        numbers = [f"{statistics.median(took) * 1000:.2f}, {p99(took) * 1000:.2f}" for took in report[:2]]
        rows.append([size, *numbers, f"{times:.2f}", f"{report.grown / 2**20:.1f}"])
        found += broken(report) + [f"another's p99 was {times:.2f} times as long"] * (times > P99_TIMES)
    heads = ["tasks a package", "before, median and p99, ms", "beside, ms", "p99 beside to before", "router grown, MiB"]
    note = f"{TASKS} tasks offered at once by a client that reads nothing; single calls of another."
    table.show(Table(name="", title="A stalled reader", note=note, heads=heads, rows=rows), console)
    for line in found:
        console.print(f"BROKEN: {line}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
