"""A real engine in processes of its own, on free ports, for the benchmark and the demonstration."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import taskengine
from taskengine import Client, TaskEngineError
from taskengine.security.keys import KeyRing

START_S = 30.0
STOP_S = 15.0
ASK_S = 0.25
TASK_WORKERS = 2


def _text(value: object) -> str:
    """A setting as the environment has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class EngineFailed(Exception):
    """The engine did not start, or did not stop; the text holds what it printed."""


def free_ports(number: int) -> list[int]:
    """So many ports of loopback on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Engine:
    """`python -m taskengine serve` with `settings` by field name, two task workers and one data worker.

    The environment's own `TASKENGINE_*` and a `taskengine.toml` in the current folder are kept out; the
    setting `config` is the text of one of its own.

    Raises EngineFailed.
    """

    def __init__(self, **settings: object) -> None:
        config = str(settings.pop("config", ""))
        frontend, backend, data, stop = free_ports(4)
        self.settings: dict[str, object] = {
            "router_frontend": frontend,
            "router_backend": backend,
            "stop_port": stop,
            "task_workers": TASK_WORKERS,
            "data_workers": 1,
            "starting_port": data - TASK_WORKERS,
            **settings,
        }
        self.address = f"tcp://127.0.0.1:{frontend}"
        self._folder = tempfile.TemporaryDirectory()
        self.keys = self._pair() if settings.get("curve") == "on" else None
        Path(self._folder.name, "taskengine.toml").write_text(config)
        self._output = Path(self._folder.name, "output")
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "taskengine", "serve"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder.name,
                env=self._environment(),
            )
        try:
            self._await_answer()
        except BaseException:
            self._kill()
            raise

    def _pair(self) -> Path:
        """Make a key for the clients, and let it in; the folder of the keys."""
        folder = Path(self._folder.name, "keys")
        ring = KeyRing(folder)
        ring.accept(ring.pair("bench", self.address))
        self.settings["keys"] = folder
        return folder

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKENGINE_")}
        environment |= {f"TASKENGINE_{name.upper()}": _text(value) for name, value in self.settings.items()}
        source = str(Path(taskengine.__file__).resolve().parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join([source, *filter(None, [environment.get("PYTHONPATH")])])
        return environment

    def _await_answer(self) -> None:
        end = time.monotonic() + START_S
        with Client(self.address, timeout=ASK_S, keys=self.keys) as client:
            while time.monotonic() < end:
                if self._process.poll() is not None:
                    raise EngineFailed(f"the engine ended with {self._process.returncode}:\n{self.output()}")
                with contextlib.suppress(TaskEngineError):
                    client.call("task_count", 2, 3)
                    return
        raise EngineFailed(f"the engine did not answer within {START_S:g} s:\n{self.output()}")

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def output(self) -> str:
        """Return all that it has printed so far."""
        return self._output.read_text(errors="replace")

    def stop(self) -> str:
        """Stop it as ctrl-c would, and give all that it printed. May be called twice. Raises EngineFailed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise EngineFailed(f"the engine did not stop within {STOP_S:g} s:\n{self.output()}") from None
        text = self.output()
        if code:
            raise EngineFailed(f"the engine ended with {code}:\n{text}")
        return text

    def close(self) -> None:
        """Stop it and forget what it printed. Raises EngineFailed where it does not stop cleanly."""
        try:
            self.stop()
        finally:
            self._folder.cleanup()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
