"""Fixtures of pytest for the tests of your own tasks: an engine with simulated pins, and a client of it.

In `conftest.py`: `from taskengine.testing import client, engine`. Pytest loads nothing of this by itself, so that
whoever has Task Engine installed finds no fixtures that nobody asked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskengine.client.blocking import Client
from taskengine.config.loading import CONFIG_FILE, load
from taskengine.config.settings import Settings
from taskengine.security.keys import KeyRing

START_S, STOP_S = 60.0, 30.0
"""How long an engine may take to start and to stop, in s."""
ANSWER_S = 10.0
"""The timeout of the fixture `client`, in s."""
ATTEMPTS = 100
HOST = "127.0.0.1"


class EngineUnderTest:
    """An engine of a folder's settings with simulated pins, on free ports of this machine, in processes of its own.

    Args:
        folder: the folder with `taskengine.toml`, or one below it; without such a file the defaults hold.
        client: the name of the client's key, where the settings have a policy or encrypt.
        settings: changes of the settings, such as `task_workers=1`.

    Raises:
        RuntimeError: the engine did not start; the text is what it printed.
        SettingsError: the settings cannot be read, or do not go together.
    """

    def __init__(self, folder: Path, client: str = "tests", **settings: Any) -> None:
        places = [folder, *folder.parents]
        self.folder = next((place for place in places if (place / CONFIG_FILE).is_file()), folder)
        self._own = tempfile.TemporaryDirectory(prefix="taskengine-testing-")
        try:
            self._start(client, settings)
        except BaseException:
            self._own.cleanup()
            raise

    def _start(self, client: str, changes: dict[str, Any]) -> None:
        file = self.folder / CONFIG_FILE
        config = [file] if file.is_file() else []
        found = load(config[0] if config else None, {}, {"pins": "mock", "host": HOST, **changes})
        ports = free_ports(found)
        self.address = f"tcp://{HOST}:{ports['router_frontend']}"
        self.keys: Path | None = None
        """The folder of the client's keys; None where the engine does not encrypt."""
        # a USER takes root, and the log of a robot that works is not for tests
        flags = {"host": HOST, "pins": "mock", "user": "", "group": "", "metrics_port": 0, "audit": "", **ports}
        flags["keys"] = Path(self._own.name, "keys")
        if found.is_curved:
            self.keys = Path(self._own.name, "keys")
            ring = KeyRing(self.keys)
            ring.accept(ring.pair(client, self.address))
        words = [word for name, value in {**flags, **changes}.items() for word in _flag(name, value)]
        words += ["--config", str(file)] if config else []
        self._output = Path(self._own.name, "output")
        self._process = self._serve(words)

    def _serve(self, flags: list[str]) -> subprocess.Popen[bytes]:
        """Start the engine, and wait until it tells that its processes are online, as it tells systemd."""
        address = str(Path(self._own.name, "ready"))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TASKENGINE_")}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self._output.open("wb") as output:
            ready.bind(address)
            # this interpreter and our own module; no shell reads the arguments
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "taskengine", "serve", *flags],
                cwd=self.folder,
                env={**environ, "NOTIFY_SOCKET": address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            ready.settimeout(0.1)
            for _ in range(int(START_S / 0.1)):
                with contextlib.suppress(TimeoutError):
                    if ready.recv(4096).startswith(b"READY=1"):
                        return process
                if process.poll() is not None:
                    break
        process.kill()
        process.wait()
        raise RuntimeError(f"the engine of {self.folder} did not start; it printed:\n{self.output()}")

    def output(self) -> str:
        """Return what the engine and its tasks have printed so far."""
        return self._output.read_text("utf-8", "replace")

    def client(self, timeout: float = ANSWER_S) -> Client:
        """Return a client of the engine, to be closed; its calls wait `timeout` s at most."""
        return Client(self.address, "tests", timeout, self.keys)

    def close(self) -> None:
        """Stop the engine with all its processes. May be called twice."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._own.cleanup()

    def __enter__(self) -> EngineUnderTest:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def free_ports(settings: Settings) -> dict[str, int]:
    """Return settings of ports that nobody listens on, for an engine with these numbers of workers."""
    number = 3 + settings.data_workers
    for _ in range(ATTEMPTS):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            first = held.enter_context(socket.create_server((HOST, 0))).getsockname()[1]
            for port in range(first + 1, first + number):
                held.enter_context(socket.create_server((HOST, port)))
            return {
                "router_frontend": first,
                "router_backend": first + 1,
                "stop_port": first + 2,
                "starting_port": first + 3 - settings.task_workers,
            }
    raise RuntimeError(f"no {number} free ports were found beside each other on {HOST}")


def _flag(name: str, value: object) -> list[str]:
    return [f"--{name.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else str(value)]


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[EngineUnderTest]:
    """An engine of the settings of the test's folder, with simulated pins, one for each test file."""
    with EngineUnderTest(request.path.parent) as running:
        yield running


@pytest.fixture
def client(engine: EngineUnderTest) -> Iterator[Client]:
    """A client of `engine`; the machine is armed, whatever the test before did."""
    with engine.client() as connected:
        connected.info()
        if connected.stop_in_force:
            connected.arm()
        yield connected
