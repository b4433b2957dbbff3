"""Many clients at once, each a process of its own: single calls, then packages."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from bench.engine import Engine, EngineFailed
from bench.figures import percentile
from bench.headline import MS
from bench.matrix.extent import Extent
from bench.ours import Ours
from bench.quiet import Quiet
from bench.report import US
from bench.span import RESULT, timed_call, timed_package
from bench.system import PACKAGE
from bench.table import Cell, Table

START_S = 60.0
# children of a server that has loaded everything start in milliseconds, and share its memory
_forkserver = multiprocessing.get_context("forkserver")


class Work(NamedTuple):
    """The results of one client: the spans of its calls and of its packages in s; what went wrong, if anything."""

    calls: list[float]
    packages: list[float]
    failure: str = ""


def measure(extent: Extent, settings: dict[str, object], quiet: Quiet) -> Table:
    """Each number of clients on one engine. Raises EngineFailed."""
    _forkserver.set_forkserver_preload(["bench.matrix.crowd"])
    rows: list[Sequence[Cell]] = []
    with Engine(**settings) as engine:
        for clients in extent.clients:
            quiet.wait()
            rows.append(_row(clients, _play(engine.address, clients, extent.clients_s), extent.clients_s))
    return Table(
        name="clients",
        title="1, 8 and 64 clients at once",
        note="Each client is a process of its own, which calls again as soon as it has its answer: single calls for "
        f"{extent.clients_s:g} s, then packages of {PACKAGE} for as long. Fairness is the least that a client got, "
        "divided by the most. The clients share the machine's cores with the engine.",
        heads=[
            "clients",
            "calls/s",
            "call µs p50",
            "call µs p99",
            "fairness of calls",
            "million tasks/s",
            "package ms p50",
            "package ms p99",
            "fairness of packages",
        ],
        rows=rows,
    )


def _play(address: str, clients: int, seconds: float) -> list[Work]:
    pairs = [_forkserver.Pipe() for _ in range(clients)]
    processes: list[BaseProcess] = [
        _forkserver.Process(target=_client, args=(address, seconds, theirs), daemon=True) for _, theirs in pairs
    ]
    for process in processes:
        process.start()
    found = []
    try:
        ours = [pair[0] for pair in pairs]
        for _ in range(2):
            for control in ours:
                _hear(control)
            for control in ours:
                control.send("go")
        found = [_hear(control) for control in ours]
    finally:
        for process in processes:
            process.join(START_S)
            process.kill()
    return found


def _hear(control: Connection) -> Work:
    if not control.poll(START_S):
        raise EngineFailed(f"a client was not ready within {START_S:g} s")
    work: Work = control.recv()
    if work.failure:
        raise EngineFailed(work.failure)
    return work


def _client(address: str, seconds: float, control: Connection) -> None:
    """A client's process: ready, calls, ready, packages, what it found."""
    try:
        ours = Ours("a client", address)
        job, expected = ours.package(PACKAGE), [RESULT] * PACKAGE
        timed_package(ours.name, job, expected)
        calls = _again_and_again(control, seconds, lambda: timed_call(ours.name, ours.one))
        packages = _again_and_again(control, seconds, lambda: timed_package(ours.name, job, expected))
        ours.close()
        control.send(Work(calls, packages))
    except Exception as error:
        control.send(Work([], [], f"{type(error).__name__}: {error}"))


def _again_and_again(control: Connection, seconds: float, measure: Callable[[], float]) -> list[float]:
    """Say that we are ready, wait for the others, and measure for so long; one at least."""
    control.send(Work([], []))
    control.recv()
    end = time.monotonic() + seconds
    spans = [measure()]
    while time.monotonic() < end:
        spans.append(measure())
    return spans


def _row(clients: int, found: list[Work], seconds: float) -> list[Cell]:
    calls = [span for work in found for span in work.calls]
    packages = [span for work in found for span in work.packages]
    per_call, per_package = ([len(work.calls) for work in found], [len(work.packages) for work in found])
    return [
        clients,
        len(calls) / seconds,
        percentile(calls, 50) * US,
        percentile(calls, 99) * US,
        min(per_call) / max(per_call),
        len(packages) * PACKAGE / seconds / 1e6,
        percentile(packages, 50) * MS,
        percentile(packages, 99) * MS,
        min(per_package) / max(per_package),
    ]
