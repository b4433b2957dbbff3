"""A real engine for tests: `python -m taskengine serve` on free ports."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from taskengine import Client, EngineUnreachable, KeysError, NotAllowed, TaskEngineError
from taskengine.runtime import rundir
from tests.emulation import EMULATED

_WORKER, _WORKERS = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
FACTOR = float(os.environ.get("TASKENGINE_TEST_TIME_FACTOR", "1")) * (2 if _WORKER else 1)
"""How much slower than a quiet machine this one is; beside other tests twice as slow."""
_ALL_PORTS = range(20000, 32000)


def share_of_ports(worker: str, workers: int) -> range:
    """The ports of one of pytest-xdist's workers, "gw0" and on; no two try the same."""
    each = len(_ALL_PORTS) // workers
    return _ALL_PORTS[int(worker.removeprefix("gw")) * each :][:each]


_PORTS = share_of_ports(_WORKER or "gw0", _WORKERS)


def deadline(seconds: float) -> float:
    """`seconds`, as long as they are on a slow machine."""
    return seconds * FACTOR


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(done: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `done()`; a deadline that passes is a failed test."""
    end = time.monotonic() + deadline(seconds)
    while not done():
        assert time.monotonic() < end, f"waited {deadline(seconds):g} s for {what}"
        time.sleep(0.01)


def free_ports(number: int) -> int:
    """The first of `number` neighbouring ports that nobody listens on."""
    while True:
        first = random.choice(_PORTS[:-number])
        try:
            for port in range(first, first + number):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


def serve_command(*options: str) -> tuple[list[str], int]:
    """The command that serves on free ports, and the port of its frontend."""
    first = free_ports(5)
    command = [sys.executable, "-m", "taskengine", "serve", *options, "--router-frontend", str(first)]
    return [*command, "--router-backend", str(first + 1), "--starting-port", str(first + 2)], first


def serve_on_terminal(*options: str) -> tuple[subprocess.Popen[bytes], int, int]:
    """Serve on a terminal of its own: the process, our end of the terminal, and the port of the frontend."""
    ours, theirs = pty.openpty()
    command, first = serve_command(*options)
    take_terminal = "import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{take_terminal}; os.execv({command[0]!r}, {command!r})"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return process, ours, first


def children(pid: int) -> dict[int, str]:
    """The living children of a process: pid to name."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it ended meanwhile
            continue
        name, state, parent = text[text.index("(") + 1 : text.rindex(")")], *text[text.rindex(")") + 2 :].split()[:2]
        if int(parent) == pid and state != "Z":
            found[int(stat.parent.name)] = name
    return found


def alive(pid: int) -> bool:
    """The process exists and is no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] != "Z"


def _answers(client: Client) -> bool:
    try:
        client.info()
    except NotAllowed:  # it answers, if not us
        return True
    except TaskEngineError:
        return False
    return True


class Engine:
    """An engine with the settings given (as flags, `tasks="a,b"`), on free ports unless they are given too.

    `env` is added to its environment.
    """

    def __init__(self, *, cwd: Path | None = None, env: Mapping[str, str] | None = None, **settings: Any) -> None:
        self._workers = {role: int(settings.get(f"{role}_workers", n)) for role, n in (("task", 2), ("data", 1))}
        first = free_ports(3 + sum(self._workers.values()))
        settings = {
            "router_frontend": first,
            "router_backend": first + 1,
            "starting_port": first + 2,
            "stop_port": first + 2 + sum(self._workers.values()),
            **settings,
        }
        self.settings = settings
        host = str(settings.get("host", "127.0.0.1"))
        self.address = f"tcp://{f'[{host}]' if ':' in host else host}:{settings['router_frontend']}"
        self._folder = tempfile.TemporaryDirectory()
        self._output = Path(self._folder.name, "output")
        flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taskengine", "serve", *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd or self._folder.name,
                env={**os.environ, **(env or {})},
            )
        self._await_answer()

    def _await_answer(self) -> None:
        try:
            with Client(self.address, timeout=2.0 if EMULATED else 0.2, insecure=True) as client:
                wait_until(lambda: self.process.poll() is not None or _answers(client), 20.0, "the engine's start")
            wait_until(lambda: self.process.poll() is not None or self._is_whole(), 20.0, "the workers' start")
            assert self.process.poll() is None, "the engine ended"
        except AssertionError as error:
            self.process.kill()
            self.process.wait()
            text = self.output()
            self._folder.cleanup()
            raise AssertionError(f"{error}; it printed:\n{text}") from error

    def _is_whole(self) -> bool:
        """The router answers before the last worker is started."""
        return all(len(self.pids(role)) >= count for role, count in self._workers.items())

    @property
    def backend(self) -> str:
        """Where its workers meet its router: a Unix socket, or a port where it could make none."""
        path = rundir.served(self.address, rundir.BACKEND)
        return f"tcp://127.0.0.1:{self.settings['router_backend']}" if path is None else f"ipc://{path}"

    def output(self, start: int = 0) -> str:
        """Return all that it has printed so far, from a byte on."""
        with self._output.open("rb") as output:
            output.seek(start)
            return output.read().decode(errors="replace")

    def pids(self, name: str = "") -> list[int]:
        """Its living processes, of all roles or of those whose name holds `name` (router, task, data)."""
        return [pid for pid, role in children(self.process.pid).items() if name in role]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it with a signal and give the exit code; its counts have to agree, and no process may be left."""
        self.check_counts()
        pids = self.pids()
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)  # a test that failed may have left it stopped
        code = self.process.wait(deadline(20.0))
        wait_until(lambda: not any(map(alive, pids)), 2.0, f"the end of {pids}")
        return code

    def check_counts(self) -> None:
        """Every task that it has accepted is answered or in flight; unless it is dead, or lets nobody in."""
        if not self.pids("router"):
            return
        try:
            keys = self.settings.get("keys")
            with Client(self.address, timeout=deadline(5.0), keys=keys, insecure=True) as client:
                stats = client.stats()
        except (EngineUnreachable, KeysError, NotAllowed):
            return
        assert stats.accepted == stats.answered + stats.in_flight, stats

    def close(self) -> None:
        """Stop it if it still runs, and forget its output."""
        if self.process.poll() is None:
            self.stop()
        self._folder.cleanup()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
