"""Does the plan's deeds to an engine, in time, while clients use it."""

from __future__ import annotations

import heapq
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from taskengine import Client, TaskEngineError
from tests.chaos import strangers
from tests.chaos.clients import ANSWER_S, Crowd
from tests.chaos.plan import Deed
from tests.chaos.watch import Watch
from tests.engine import Engine, deadline

TICK_S = 0.003
STILL = "has sent no heartbeat for too long: router; killing it"
PROBE_S = 0.25
"""How long one question waits by which a new router is found."""


def counts(engine: Engine) -> dict[str, int]:
    """How many processes of each role it has."""
    return {role: len(engine.pids(role)) for role in ("router", "task", "data")}


class _Lines:
    """The lines of an engine's output that are new."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._start = 0

    def read(self) -> Iterator[str]:
        text = self._engine.output(self._start)
        whole = text[: text.rfind("\n") + 1]
        self._start += len(whole.encode())
        yield from whole.splitlines()


class Chaos:
    """One engine whose processes are `normal` in number, and what is done to it; `killed_routers` are the times."""

    def __init__(self, engine: Engine, seed: int, normal: dict[str, int]) -> None:
        self._normal = normal
        self._engine = engine
        self._chance = random.Random(f"{seed} deeds")
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._threads: list[threading.Thread] = []
        self.crowd = Crowd(engine.address, "CROWD")
        self.watch = Watch()
        self.done: Counter[str] = Counter()
        self.killed_routers: list[float] = []
        self.router_recoveries: list[float] = []

    def work_off(self, deeds: Sequence[Deed], seconds: float) -> None:
        """Do the deeds in time, and watch the engine's lines for so many seconds."""
        start = time.monotonic()
        for number, deed in enumerate(deeds):
            action: Callable[[], None] = partial(self._do, deed)
            heapq.heappush(self._later, (start + deed.at, number, action))
        lines = _Lines(self._engine)
        while (now := time.monotonic()) < start + seconds:
            for line in lines.read():
                self.watch.take(line, now)
                if STILL in line:
                    self._note_router(now)
            while self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
            time.sleep(TICK_S)
        while self._later:  # no process stays stopped
            heapq.heappop(self._later)[2]()
        self._settle(lines)

    def broken(self) -> list[str]:
        """Return the engine's lines that should not be: deaths that nobody caused, and complaints."""
        causes = {f"{kind}: SIGKILL" for kind in ("router", "task", "data")} | {"task: exit code 7", "task: SIGSEGV"}
        deaths = self.watch.deaths
        own = deaths["router: SIGKILL"] - len(self.killed_routers)
        return [
            *(
                f"a process ended by itself, {cause} ({deaths[cause]} times)"
                for cause in sorted(deaths.keys() - causes)
            ),
            *([f"the router was ended {own} times by another than us"] if own > 0 else []),
            *(f"the engine printed: {line}" for line in self.watch.wrong[:5]),
            *(["no result came after a router's death"] if self._unanswered() else []),
        ]

    def _unanswered(self) -> bool:
        """Of two routers killed shortly one after the other, both are timed."""
        return len(self.router_recoveries) < len(self.killed_routers)

    def _settle(self, lines: _Lines) -> None:
        """Wait until the engine has all its processes, and the strangers are gone."""
        for thread in self._threads:
            thread.join(ANSWER_S)
        end = time.monotonic() + deadline(20.0)
        while counts(self._engine) != self._normal and time.monotonic() < end:
            time.sleep(TICK_S)
        now = time.monotonic()
        for line in lines.read():
            self.watch.take(line, now)

    def _do(self, deed: Deed) -> None:
        done = getattr(self, f"_{deed.kind}")(deed)
        self.done[f"{deed.kind} {deed.what}".strip()] += done is not False

    def _kill(self, deed: Deed) -> bool:
        for pid in self._workers()[:1]:
            self.watch.killed(pid, time.monotonic())
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def _stop(self, deed: Deed) -> bool:
        return self._freeze(self._workers()[:1], deed.amount)

    def _stop_router(self, deed: Deed) -> bool:
        return self._freeze(self._engine.pids("router"), deed.amount)

    def _reload(self, deed: Deed) -> None:
        self._engine.process.send_signal(signal.SIGHUP)

    def _cancel(self, deed: Deed) -> None:
        self._beside(self.crowd.cancel)

    def _freeze(self, pids: list[int], seconds: float) -> bool:
        for pid in pids:
            with suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                signal.pidfd_send_signal(handle, signal.SIGSTOP)
                self._do_later(seconds, partial(_continue, handle))
                return True
        return False

    def _kill_router(self, deed: Deed) -> bool:
        for pid in self._engine.pids("router"):
            self._note_router(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def _note_router(self, now: float) -> None:
        """A router is about to die, by us or because it stood still."""
        self.killed_routers.append(now)
        self._beside(self._time_router, now)

    def _flood(self, deed: Deed) -> None:
        self._beside(self.crowd.flood, int(deed.amount))

    def _stall(self, deed: Deed) -> None:
        self._beside(strangers.stall, self._engine.address, deed.amount)

    def _garbage(self, deed: Deed) -> None:
        port = int(self._engine.settings[f"router_{deed.what}"])
        self._beside(strangers.send_garbage, port, random.Random(self._chance.random()))

    def _poison(self, deed: Deed) -> None:
        self.crowd.poison(deed.what)

    def _workers(self) -> list[int]:
        """The workers, whoever is to suffer first."""
        pids = sorted(self._engine.pids("task") + self._engine.pids("data"))
        self._chance.shuffle(pids)
        return pids

    def _do_later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, -len(self._later) - 1, action))

    def _beside(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _time_router(self, killed: float) -> None:
        """How long it takes until a client that asks without pause gets a task's result again."""
        end = killed + deadline(30.0)
        with Client(self._engine.address, "PROBE", timeout=PROBE_S) as client:
            while time.monotonic() < end:
                with suppress(TaskEngineError):
                    client.options(priority="urgent").call("chaos.ping")
                    self.router_recoveries.append(time.monotonic() - killed)
                    return


def _continue(handle: int) -> None:
    """Let a stopped process go on, if it lives."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGCONT)
    os.close(handle)
