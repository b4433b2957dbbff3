"""Measures what allowed keys that attack cost an honest client and the machine, beside a second engine in peace."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec

from taskengine import Client, TaskEngineError
from taskengine.client.subscription import Subscription
from taskengine.security.keys import KeyRing
from tests.chaos.insiders import POLICY, TASKS, Assault, Insider
from tests.engine import Engine, deadline, resident, wait_until

MIB = 2**20
HONEST, TOPIC, NOTHING = "honest", "tick", "no attack"
ALL_AT_ONCE = "all at once"
CONNECTIONS = 256
PATIENCE_S = 30.0
WATCH_S, LOOK_S, PAUSE_S, SETTLED_S = 0.02, 0.1, 0.001, 20.0
WARM_CALLS = 100
EVERY = 8
"""After so many calls the honest client publishes and stops once."""
TIMES, NOISE_S = 2.0, 0.050
"""A p99 is at most so many times that at the engine beside, and so many s: turns of the router, and of the machine."""
BUSY_S = {
    "names x policy": 0.2,
    "empty packages": 0.2,
    "questions": 0.2,
    "one serial in flight": 2.0,
    "lanes in turns": 2.0,
    "GET of wire 0.1": 0.4,
    "PUB of wire 0.1": 0.4,
    "CANCEL storm": 0.2,
    "unread replies": 0.6,
    ALL_AT_ONCE: 2.0,
}
"""The s of attacks by which a client still keeps the router busy."""
STATS_TIMES, ROUTER_BYTES = 1.5, 96 * MIB
"""The growth that a router may have, as a factor of what STATS says, and bytes beside that."""
WORKER_BYTES = 384 * MIB
"""The growth that a worker may have."""
AUDIT_BYTES = 64 * 2**10
"""The bytes of the audit log that each insider may cause."""

SETTINGS = f"""
[hardware.devices.lamp]
type = "LED"
pin = 17

[policy.{HONEST}]
tasks = ["*"]
devices = ["*"]
publish = ["{TOPIC}"]
subscribe = ["*"]
calls = ["stats"]
{POLICY}"""


class Figures(msgspec.Struct, frozen=True):
    """The observations of an attack: times of the honest client in s, memory and log in bytes.

    `call`, `publication` and `stop` are p99s, `call_beside` and `stop_beside` those at the engine beside. STATS said
    at most that `told` bytes were held, `ended` processes of the engine ended, and the client was `refused` that.
    """

    attack: str
    rounds: int
    calls: int
    call: float
    call_beside: float
    publication: float
    stop: float
    stop_beside: float
    router: int
    told: int
    worker: int
    audit_lines: int
    audit_bytes: int
    ended: int
    refused: list[str]


def slow(figures: Figures) -> list[str]:
    """Return the times that were too long, which other work on the machine may have caused."""
    noise_s = BUSY_S.get(figures.attack, NOISE_S)
    return [
        f"{figures.attack}: a {what} took {took * 1000:.1f} ms, beside it {beside * 1000:.1f} ms"
        for what, took, beside, most_s in (
            ("call", figures.call, figures.call_beside, noise_s),
            ("stop", figures.stop, figures.stop_beside, NOISE_S),
        )
        if took > TIMES * beside + deadline(most_s)
    ]


def broken(figures: Figures, insiders: int = 1) -> list[str]:
    """Return the other limits that were broken, where so many attacked."""
    found = [] if figures.rounds else ["nobody attacked"]
    if figures.router > STATS_TIMES * figures.told + ROUTER_BYTES:
        found.append(f"the router grew by {figures.router / MIB:.0f} MiB, STATS said {figures.told / MIB:.0f}")
    if figures.worker > WORKER_BYTES:
        found.append(f"a worker grew by {figures.worker / MIB:.0f} MiB")
    if figures.audit_bytes > AUDIT_BYTES * insiders:
        found.append(f"the audit log grew by {figures.audit_bytes} bytes")
    if figures.ended:
        found.append(f"{figures.ended} processes of the engine ended")
    return [f"{figures.attack}: {line}" for line in (*found, *figures.refused[:1])]


class Row(NamedTuple):
    """Return an attack's cells in a table: p99s in ms, and the growth of the router and the largest worker, in MiB."""

    call: float
    beside: float
    stop: float
    router: int
    worker: int
    audit_lines: int
    ended: int
    refused: int

    @classmethod
    def of(cls, figures: Figures) -> Row:
        """Round what was seen."""
        call, beside, stop = (round(s * 1000, 1) for s in (figures.call, figures.call_beside, figures.stop))
        router, worker = figures.router // MIB, figures.worker // MIB
        return cls(call, beside, stop, router, worker, figures.audit_lines, figures.ended, len(figures.refused))


class _Honest(NamedTuple):
    """The observations of the honest client."""

    calls: list[float]
    calls_beside: list[float]
    publications: list[float]
    stops: list[float]
    stops_beside: list[float]
    told: list[int]
    refused: list[str]


class _Watch:
    """The most memory that each process of an engine had."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.peaks = {pid: resident(pid) for pid in pids}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._is_over.wait(WATCH_S):
            for pid in self.peaks:
                with contextlib.suppress(OSError):
                    self.peaks[pid] = max(self.peaks[pid], resident(pid))

    def end(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._thread.join()


class _Site:
    """An engine under the policy; its clients come as from another machine, past no socket of the run folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.keys, self.folder = folder / "keys", folder
        (folder / "taskengine.toml").write_text(SETTINGS)
        (folder / "loot.py").write_text(TASKS)
        self.engine = Engine(
            cwd=folder,
            pins="mock",
            keys=self.keys,
            tasks="taskengine.tasks,loot.py",
            lanes="loot=2",
            connections=CONNECTIONS,
            curve="on",
            enable_stdout="false",
            env={"XDG_RUNTIME_DIR": str(folder)},
        )
        KeyRing(folder / HONEST).accept(KeyRing(self.keys).pair(HONEST, self.engine.address))

    def client(self) -> Client:
        """The honest one."""
        return Client(self.engine.address, timeout=deadline(PATIENCE_S), keys=self.folder / HONEST)

    @property
    def data_address(self) -> str:
        """Where its data worker publishes."""
        return f"tcp://127.0.0.1:{int(self.engine.settings['starting_port']) + 2}"

    def audit(self) -> bytes:
        """The log, both files of it."""
        files = sorted(self.keys.glob("audit.jsonl*"), reverse=True)
        return b"".join(file.read_bytes() for file in files)


class Siege:
    """An engine that `insiders` clients attack, and one beside it that nobody does."""

    def __init__(self, insiders: int) -> None:
        with contextlib.ExitStack() as held:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
            self._site, self._beside = (_Site(folder / name) for name in ("attacked", "beside"))
            for site in (self._site, self._beside):
                held.callback(site.engine.close)
            address, data = self._site.engine.address, self._site.data_address
            admitted = [Insider.admit(f"insider-{n:02}", self._site.keys, address, data) for n in range(insiders)]
            self._assault = held.enter_context(Assault(admitted))
            self._client, self._other = (held.enter_context(site.client()) for site in (self._site, self._beside))
            self._feed = held.enter_context(self._client.subscribe(TOPIC))
            _visit(self._client, self._other, self._feed, lambda seen: len(seen.calls) >= WARM_CALLS)
            self._held = held.pop_all()

    def measure(self, attack: str, seconds: float, *means: str) -> Figures:
        """Attack for so long, by these means, or by the one that the attack is named after; NOTHING attacks nobody."""
        engine = self._site.engine
        wait_until(lambda: not self._client.stats().in_flight, SETTLED_S, "the end of what was in flight")
        audit, pids, [router] = self._site.audit(), engine.pids(), engine.pids("router")
        workers = [pid for role in ("task", "data", "pin", "loot") for pid in engine.pids(role)]
        before = {pid: resident(pid) for pid in (router, *workers)}
        watch = _Watch([router, *workers])
        try:
            with nullcontext([1]) if attack == NOTHING else self._assault.by(*(means or (attack,))) as rounds:
                end = time.monotonic() + seconds
                seen = _visit(self._client, self._other, self._feed, lambda _: time.monotonic() >= end)
        finally:
            watch.end()
        written = self._site.audit()[len(audit) :]
        grown = {pid: watch.peaks[pid] - before[pid] for pid in before}
        return Figures(
            attack=attack,
            rounds=sum(rounds),
            calls=len(seen.calls),
            call=p99(seen.calls),
            call_beside=p99(seen.calls_beside),
            publication=p99(seen.publications),
            stop=p99(seen.stops),
            stop_beside=p99(seen.stops_beside),
            router=grown[router],
            told=max(seen.told, default=0),
            worker=max(grown[pid] for pid in workers),
            audit_lines=written.count(b"\n"),
            audit_bytes=len(written),
            ended=len(set(pids) - set(engine.pids())),
            refused=seen.refused + ["its name is in the audit log"] * (b'"refused","client":"honest"' in written),
        )

    def close(self) -> None:
        """End all processes."""
        self._held.close()

    def __enter__(self) -> Siege:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def p99(took: Sequence[float]) -> float:
    """Return the time within which 99 of 100 ended; of few the longest."""
    return statistics.quantiles(took, n=100)[98] if len(took) >= 100 else max(took, default=0.0)


def _visit(client: Client, other: Client, feed: Subscription, is_over: Callable[[_Honest], bool]) -> _Honest:
    """Be the honest client of both engines until it is over."""
    seen = _Honest([], [], [], [], [], [], [])
    looked_at = 0.0
    for turn in _until(lambda: is_over(seen)):
        seen.calls.append(_timed(lambda: client.call("task_count", 2, 3), seen))
        seen.calls_beside.append(_timed(lambda: other.call("task_count", 2, 3), seen))
        if turn % EVERY == 0:
            seen.publications.append(_timed(lambda turn=turn: _publish(client, feed, turn), seen))  # type: ignore[misc]
            seen.stops.append(_timed(client.stop, seen))
            seen.stops_beside.append(_timed(other.stop, seen))
        with contextlib.suppress(TaskEngineError):
            if turn % EVERY == 0 or time.monotonic() > looked_at + LOOK_S:
                looked_at = time.monotonic()
                seen.told.append(client.stats().bytes_in_flight)
        time.sleep(PAUSE_S)
    return seen


def _until(is_over: Callable[[], bool]) -> Iterator[int]:
    turn = 0
    while not is_over():
        yield turn
        turn += 1


def _publish(client: Client, feed: Subscription, value: int) -> None:
    """Publish a value, and take it."""
    client.publish(TOPIC, value)
    while feed.get(deadline(1.0)).value != value:
        pass


def _timed(act: Callable[[], object], seen: _Honest) -> float:
    """How long something took, in s; what it was refused is kept."""
    start = time.perf_counter()
    try:
        act()
    except TaskEngineError as error:
        seen.refused.append(f"{type(error).__name__}: {error}")
    return time.perf_counter() - start


def main() -> None:
    """Print each attack's figures, on an engine of its own, as the table of figures before."""
    import sys

    from tests.chaos.insiders import ATTACKS

    for attack in sys.argv[2:] or ATTACKS:
        try:
            with Siege(1) as siege:
                figures = siege.measure(attack, float(sys.argv[1]))
            print(msgspec.json.encode(figures).decode(), flush=True)
            print("   ", *slow(figures), *broken(figures), sep="\n    ", file=sys.stderr, flush=True)
        except Exception as error:
            print(f"{attack}: {type(error).__name__} {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
