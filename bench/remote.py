"""A peer in a process and an environment of its own, told to measure a block at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import IO, Any

from bench.span import Block

ROOT = Path(__file__).resolve().parent.parent
STOP_S = 20.0


class PeerFailed(Exception):
    """The peer is not installed, did not start, or failed at what it was told."""


class Remote:
    """The peer `name`, run by the Python at `python`; what it and its children print goes to the file `log`.

    Raises PeerFailed.
    """

    def __init__(self, name: str, python: Path, log: Path) -> None:
        self.name = name
        self._log = log
        path = os.pathsep.join([str(python.parent), *filter(None, [os.environ.get("PATH")])])
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "bench.peers.play", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
                text=True,
                # its children are in the group too, so that none is left where it dies
                start_new_session=True,
            )
        self._to, self._from = _opened(self._process.stdin), _opened(self._process.stdout)
        try:
            told = self._heard()
            self.version: str = told["version"]
            self.has_streams: bool = told["streams"]
        except BaseException:
            self.close()
            raise

    def package(self, tasks: int, block: Block) -> list[float]:
        """Measure packages of so many tasks. Raises PeerFailed."""
        return self._told("package", tasks, *block)

    def calls(self, block: Block) -> list[float]:
        """Measure single calls. Raises PeerFailed."""
        return self._told("call", *block)

    def stream(self, values: int, block: Block) -> list[float]:
        """Measure the values of a stream, all of them. Raises PeerFailed."""
        return self._told("stream", values, *block)

    def _told(self, *what: object) -> list[float]:
        try:
            self._to.write(json.dumps(what) + "\n")
            self._to.flush()
        except OSError as error:
            raise PeerFailed(f"{self.name} is gone ({error}); see {self._log}") from None
        spans: list[float] = self._heard()["spans"]
        return spans

    def _heard(self) -> dict[str, Any]:
        line = self._from.readline()
        if not line:
            raise PeerFailed(f"{self.name} ended with {self._process.wait()}; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise PeerFailed(f"{self.name}: {answer['failure']}")
        return answer

    def close(self) -> None:
        """End it, and whatever it has left."""
        self._to.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._from.close()


def _opened(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise PeerFailed("it was started without a pipe")
    return pipe
