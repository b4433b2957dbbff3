"""`python -m tests.chaos.hostile`: hundreds of TCP peers that keep to no protocol, and an honest client among them.

Then clients with allowed keys attack another engine, all at once (tests.chaos.insiders).
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from bench import table
from bench.processes import resident
from bench.table import Cell, Table
from taskengine import Client
from taskengine.security.keys import KeyRing
from tests.chaos import siege
from tests.chaos.insiders import ATTACKS
from tests.engine import Engine, deadline, wait_until
from tests.zmtp import GREETING, MORE, READY, frame

PEERS, INSIDERS, SECONDS = 1000, 50, 60.0
QUIET_S = 5.0
MEMORY_BYTES, P99_TIMES = 32 * 2**20, 2.0
PAUSE_S = (0.2, 1.0)
WARM_CALLS, CALL_PAUSE_S = 2000, 0.001
_SPARE_FILES = 200

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _say(streams: Streams, data: bytes) -> None:
    writer = streams[1]
    writer.write(data)
    await writer.drain()


async def _nothing(streams: Streams, chance: random.Random) -> None:
    """A connection, and no more."""
    await streams[0].read(1)


async def _half(streams: Streams, chance: random.Random) -> None:
    """A handshake that ends in the middle."""
    await _say(streams, GREETING[: chance.randrange(1, len(GREETING))])
    await asyncio.sleep(chance.uniform(*PAUSE_S))


async def _garbage(streams: Streams, chance: random.Random) -> None:
    await _say(streams, chance.randbytes(chance.randrange(1, 4000)))
    await asyncio.sleep(chance.uniform(*PAUSE_S))


async def _slow(streams: Streams, chance: random.Random) -> None:
    """A handshake of single bytes."""
    for place in range(len(GREETING)):
        await _say(streams, GREETING[place : place + 1])
        await asyncio.sleep(chance.uniform(*PAUSE_S))


async def _huge(streams: Streams, chance: random.Random) -> None:
    """Frames that say that they are larger than they can be."""
    await _say(streams, GREETING + READY)
    await _say(streams, bytes([2 | MORE]) + chance.randrange(2**40, 2**63).to_bytes(8) + bytes(1000))
    await asyncio.sleep(chance.uniform(*PAUSE_S))


async def _plain(streams: Streams, chance: random.Random) -> None:
    """Messages as of a client that shows no key."""
    await _say(streams, GREETING + READY + frame(b"", MORE) + frame(b'{"type": "REQ"}', MORE))
    await _say(streams, frame(b'{"task": "task_count", "args": [2, 3]}'))
    await asyncio.sleep(chance.uniform(*PAUSE_S))


Kind = Callable[[Streams, random.Random], Awaitable[None]]
KINDS: tuple[Kind, ...] = (_nothing, _half, _garbage, _slow, _huge, _plain)


async def _peer(port: int, chance: random.Random) -> None:
    """Connect, misbehave, and begin anew."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            streams = await asyncio.open_connection("127.0.0.1", port)
            try:
                await chance.choice(KINDS)(streams, chance)
            finally:
                streams[1].close()
        await asyncio.sleep(chance.uniform(*PAUSE_S))


async def _attack(ports: list[int], peers: int, seed: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(peers):
            group.create_task(_peer(ports[number % len(ports)], random.Random(f"{seed} {number}")))


def attack(ports: list[int], peers: int, seed: int) -> None:
    """Run so many peers until the process is ended; on other machines they would cost this one no time of their own."""
    os.nice(19)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(peers + _SPARE_FILES, hard), hard))
    asyncio.run(_attack(ports, peers, seed))


class Report(NamedTuple):
    """The honest client's calls in s, at the engine under attack and at one beside it, in turns; what became of it."""

    attacked: list[float]
    beside: list[float]
    accepted: int
    grown: int
    files_before: int
    files_during: int
    files_after: int
    is_same: bool


def calls(clients: Sequence[Client], until: Callable[[int], bool], pause_s: float = 0.0) -> list[list[float]]:
    """Call each in turn until it is enough, and how long each call took, in s."""
    took: list[list[float]] = [[] for _ in clients]
    while not until(len(took[0])):
        for client, mine in zip(clients, took, strict=True):
            start = time.perf_counter()
            assert client.call("task_count", 2, 3) == 2.5
            mine.append(time.perf_counter() - start)
        time.sleep(pause_s)
    return took


@contextmanager
def _guarded() -> Iterator[tuple[Engine, Client]]:
    """An engine with CURVE, and its honest client."""
    with tempfile.TemporaryDirectory() as folder:
        ring = KeyRing(Path(folder))
        with Engine(curve="on", keys=folder, enable_stdout="false") as engine:
            ring.accept(ring.pair("honest", engine.address))
            with Client(engine.address, timeout=deadline(20.0), keys=folder) as client:
                yield engine, client


def run_hostile(seconds: float, peers: int, seed: int) -> Report:
    """Attack an engine with CURVE for so long."""
    with _guarded() as (engine, client), _guarded() as (_, other):
        ports = [int(engine.settings["router_frontend"]), int(engine.settings["starting_port"]) + 2]
        calls([client, other], lambda count: count >= WARM_CALLS)
        pids = engine.pids()
        [router] = engine.pids("router")
        memory, files = resident(router), _files(router)
        attackers = multiprocessing.get_context("spawn").Process(target=attack, args=(ports, peers, seed), daemon=True)
        attackers.start()
        peak, most = [memory], [files]
        stop = threading.Event()
        watcher = threading.Thread(target=_watch, args=(router, peak, most, stop))
        watcher.start()
        try:
            end = time.monotonic() + seconds
            attacked, beside = calls([client, other], lambda _: time.monotonic() >= end, CALL_PAUSE_S)
        finally:
            stop.set()
            watcher.join()
            attackers.kill()
            attackers.join()
        wait_until(lambda: _files(router) <= files, 10.0, "the end of the peers' connections")
        accepted = client.stats().accepted - WARM_CALLS
        is_same = engine.pids() == pids
        return Report(attacked, beside, accepted, max(peak) - memory, files, max(most), _files(router), is_same)


def _watch(router: int, peak: list[int], most: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        peak.append(resident(router))
        most.append(_files(router))


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def p99(took: list[float]) -> float:
    """Return the time within which 99 of 100 ended."""
    return statistics.quantiles(took, n=100)[98]


def broken(report: Report) -> list[str]:
    """Return the limits that were broken, whatever the machine."""
    honest = len(report.attacked)
    return [
        *([f"{report.accepted} tasks were accepted, {honest} were honest"] * (report.accepted != honest)),
        *([f"the router grew by {report.grown / 2**20:.1f} MiB"] * (report.grown > MEMORY_BYTES)),
        *(["a process of the engine ended"] * (not report.is_same)),
    ]


def main() -> int:
    """The exit code: 0 all held, 1 something did not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each")
    parser.add_argument("--peers", type=int, default=PEERS, help="how many strangers")
    parser.add_argument("--insiders", type=int, default=INSIDERS, help="how many clients with allowed keys")
    parser.add_argument("--seed", type=int, default=1, help="what the strangers do")
    options = parser.parse_args()
    console = Console()
    found = _strangers(options.seconds, options.peers, options.seed, console) if options.peers else []
    found += _insiders(options.seconds, options.insiders, console) if options.insiders else []
    for line in found:
        console.print(f"BROKEN: {line}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    return 1 if found else 0


def _strangers(seconds: float, peers: int, seed: int, console: Console) -> list[str]:
    """Have strangers attack, show what came of it, and return what did not hold."""
    report = run_hostile(seconds, peers, seed)
    times = p99(report.attacked) / p99(report.beside)
    rows: list[list[Cell]] = [
        ["call to the engine under attack, median and p99, ms", _told(report.attacked)],
        ["call to one beside it, ms", _told(report.beside)],
        ["p99 under attack to beside", f"{times:.2f}"],
        ["tasks accepted, of the honest client's", f"{report.accepted} of {len(report.attacked)}"],
        ["router's memory more than before, MiB", f"{report.grown / 2**20:.1f}"],
        ["router's files before, most, after", f"{report.files_before}, {report.files_during}, {report.files_after}"],
    ]
    note = "Half of the peers each at the frontend and a data port; the calls to both engines in turns."
    title = f"{peers} hostile peers for {seconds:g} s"
    table.show(Table(name="", title=title, note=note, heads=["", ""], rows=rows), console)
    return broken(report) + [f"an honest call's p99 was {times:.2f} times as long"] * (times > P99_TIMES)


def _insiders(seconds: float, count: int, console: Console) -> list[str]:
    """Have clients with allowed keys attack, show what came of it, and return what did not hold."""
    with siege.Siege(count) as besieged:
        quiet = besieged.measure(siege.NOTHING, QUIET_S)
        seen = besieged.measure(siege.ALL_AT_ONCE, seconds, *ATTACKS)
    both = (quiet, seen)
    rows: list[list[Cell]] = [[what, *(f"{read(one):.1f}" for one in both)] for what, read in _FIGURES.items()]
    note = f"{seen.rounds} rounds of {len(ATTACKS)} attacks; the honest client visits both engines in turns."
    title = f"{count} hostile clients with allowed keys for {seconds:g} s"
    heads = ["", "before", "under attack"]
    table.show(Table(name="", title=title, note=note, heads=heads, rows=rows), console)
    return siege.slow(seen) + siege.broken(seen, count)


_FIGURES: dict[str, Callable[[siege.Figures], float]] = {
    "call, p99, ms": lambda seen: seen.call * 1000,
    "call to an engine beside, p99, ms": lambda seen: seen.call_beside * 1000,
    "publication until it is received, p99, ms": lambda seen: seen.publication * 1000,
    "stop, p99, ms": lambda seen: seen.stop * 1000,
    "stop at an engine beside, p99, ms": lambda seen: seen.stop_beside * 1000,
    "calls": lambda seen: seen.calls,
    "refused to the honest client": lambda seen: len(seen.refused),
    "processes of the engine that ended": lambda seen: seen.ended,
    "router's memory more than before, MiB": lambda seen: seen.router / siege.MIB,
    "held, as STATS says, MiB": lambda seen: seen.told / siege.MIB,
    "largest growth of a worker, MiB": lambda seen: seen.worker / siege.MIB,
    "audit log, lines": lambda seen: seen.audit_lines,
    "audit log, KiB": lambda seen: seen.audit_bytes / 1024,
}
"""The rows of the table of insiders."""


def _told(took: list[float]) -> str:
    return f"{statistics.median(took) * 1000:.2f}, {p99(took) * 1000:.2f}"


if __name__ == "__main__":
    sys.exit(main())
