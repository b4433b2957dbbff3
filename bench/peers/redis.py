"""A Redis of our own, which keeps nothing, for the peers that need one; and how their workers are started."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time

SERVER = "redis-server"
START_S = 10.0


class Redis:
    """A server on a free port of loopback. Raises FileNotFoundError where there is none, OSError where it fails."""

    def __init__(self) -> None:
        path = shutil.which(SERVER)
        if path is None:
            raise FileNotFoundError(f"{SERVER} is missing: apt install {SERVER}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        self._folder = tempfile.TemporaryDirectory()
        options = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._folder.name}
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._process = subprocess.Popen([path, *arguments], stdout=subprocess.DEVNULL)
        end = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                if time.monotonic() > end:
                    self.close()
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


def worker(module: str, url: str) -> subprocess.Popen[bytes]:
    """A process that runs a peer's module as its worker."""
    return subprocess.Popen([sys.executable, "-m", module, url])
