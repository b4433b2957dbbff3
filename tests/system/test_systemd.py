"""The real engine, started as systemd would start it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client
from tests.engine import Engine, deadline, wait_until
from tests.system.test_cli import run

pytestmark = pytest.mark.system

LIMIT_USEC = 200_000
LOADED = "LOADED"


class Manager:
    """The socket of a service manager, and all that has come to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that systemd sets for a service with a watchdog."""
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": str(LIMIT_USEC)}

    def _read(self) -> None:
        while message := self._socket.recv(1000):
            self.messages.append(message.decode())

    def beats(self) -> int:
        """How often it was told that the engine lives."""
        return self.messages.count("WATCHDOG=1")

    def told(self, what: str) -> list[str]:
        """The messages that begin with `what`."""
        return [message for message in self.messages if message.startswith(what)]

    def close(self) -> None:
        """End the thread: an empty message is the last one."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self.path))
        self._reader.join()
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def module_that_tells(folder: Path, manager: Manager) -> Path:
    """A task module that tells the manager when it is loaded, in the order in which the engine tells it."""
    module = folder / "tells.py"
    module.write_text(
        "import os, socket, subprocess\n\n"
        "def systemds(names):\n"
        "    return [name for name in names if name.startswith(('NOTIFY_', 'WATCHDOG_'))]\n\n"
        "def task_environ():\n"
        "    inherited = subprocess.run(['env'], capture_output=True, text=True).stdout.splitlines()\n"
        "    return systemds(os.environ) + systemds(inherited)\n\n"
        "with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:\n"
        f"    sender.sendto(f'{LOADED} {{systemds(os.environ)}}'.encode(), {str(manager.path)!r})\n"
    )
    return module


def test_systemd_is_told_that_it_is_ready_that_it_lives_and_that_it_stops(tmp_path: Path, manager: Manager) -> None:
    with Engine(tasks=module_that_tells(tmp_path, manager), env=manager.env, drain_time="3") as engine:
        wait_until(lambda: manager.told("READY=1"), 20, "READY=1")
        with Client(engine.address, timeout=deadline(20)) as client:
            assert client.call("task_environ") == []
        wait_until(lambda: manager.beats() >= 3, 20, "beats")
        assert not manager.told("STOPPING=1")
        assert engine.stop() == 0
        wait_until(lambda: manager.told("STOPPING=1"), 5, "STOPPING=1")
        assert "systemd" not in engine.output()
        frontend = engine.address
    # by the two workers that have its task: neither for the catalogue, nor by the data worker
    assert manager.messages[:2] == [f"{LOADED} []"] * 2
    assert manager.messages[2] == f"READY=1\nMAINPID={engine.process.pid}\nSTATUS=Serving 1 tasks on {frontend}"
    assert set(manager.messages[3:]) == {"WATCHDOG=1", *manager.told("STOPPING=1")}
    assert manager.told("STOPPING=1") == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=9500000"]


def test_it_lives_on_where_the_router_is_started_again(manager: Manager) -> None:
    with Engine(env=manager.env) as engine:
        (router,) = engine.pids("router")
        os.kill(router, signal.SIGKILL)
        wait_until(lambda: engine.pids("router") not in ([], [router]), 20, "another router")
        beats = manager.beats()
        wait_until(lambda: manager.beats() > beats + 1, 20, "beats")
        assert len(manager.told("READY=1")) == 1


def test_an_engine_whose_watchdog_is_for_another_process_does_not_beat(manager: Manager) -> None:
    with Engine(env={**manager.env, "WATCHDOG_PID": "1"}) as engine:
        wait_until(lambda: manager.told("READY=1"), 20, "READY=1")
        engine.stop()
        wait_until(lambda: manager.told("STOPPING=1"), 5, "STOPPING=1")
    assert len(manager.messages) == 2


def test_a_dead_socket_stops_no_engine(tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": str(LIMIT_USEC)}
    with Engine(env=env) as engine:
        wait_until(lambda: "Cannot notify systemd" in engine.output(), 20, "the line")
        with Client(engine.address, timeout=deadline(20)) as client:
            assert client.map("task_count", range(100), range(100)) == list(range(100))
        assert engine.stop() == 0
        assert engine.output().count("Cannot notify systemd") == 1


def test_what_is_stopped_while_it_starts_was_never_ready(tmp_path: Path, manager: Manager) -> None:
    module = tmp_path / "waits.py"
    module.write_text(
        "import multiprocessing, os, time\n"
        "if multiprocessing.current_process().name.startswith('task worker'):\n"
        f"    open({str(tmp_path / 'loading')!r}, 'w').close()\n"
        "    time.sleep(60)\n"
        "def task_of_it(): ...\n"
    )
    with Engine(env=manager.env, tasks=module) as engine:
        wait_until((tmp_path / "loading").exists, 20, "a worker that loads its tasks")
        assert engine.stop() == 0
    wait_until(lambda: manager.told("STOPPING=1"), 5, "STOPPING=1")
    assert [message.partition("\n")[0] for message in manager.messages] == ["STOPPING=1"]


def test_help_says_where_the_unit_file_lies() -> None:
    path = run("serve", "--help").stdout.split()[-1]
    assert "Type=notify\n" in Path(path).read_text()
