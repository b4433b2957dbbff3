"""Version 0.1.0 in a venv of its own, built once from this repository's history into the cache; and its engine."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from release.targets import cache
from taskengine import Client, TaskEngineError
from taskengine.security.keys import KeyRing
from tests.engine import deadline, free_ports, wait_until

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0.1.0"
COMMIT = "6932aa69440ec848626817ffe5032a1837b87fcf"
"""The commit that counts as 0.1.0: what later versions stay compatible with."""
DEVICES = """
[hardware.devices.lamp]
type = "LED"
pin = 17

[hardware.devices.wheel]
type = "Motor"
forward = 20
backward = 21
"""


def folder() -> Path:
    """Where the venv is, or is to be."""
    python = "".join(map(str, sys.version_info[:2]))
    return cache() / f"{VERSION}-{COMMIT[:12]}-py{python}"


def build() -> Path:
    """The venv's Python, built where it is not there. Raises CalledProcessError."""
    made = folder()
    python = made / "bin" / "python"
    done = made / "done"
    if not done.is_file():
        print(f"building version {VERSION}, about a minute", flush=True)
        archive = subprocess.run(["git", "archive", "--format=tar", COMMIT], cwd=ROOT, check=True, capture_output=True)
        with tempfile.TemporaryDirectory() as name:
            (tar := Path(name, "source.tar")).write_bytes(archive.stdout)
            with tarfile.open(tar) as opened:
                opened.extractall(Path(name, "source"), filter="data")
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(made)], check=True)
            source = f"{name}/source[hardware,numpy]"
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", source], check=True, stdout=sys.stderr)
        done.touch()
    return python


def python() -> Path:
    """The Python of 0.1.0; a test that comes here without it fails."""
    found = folder() / "bin" / "python"
    assert (folder() / "done").is_file(), "version 0.1.0 was not built: make test-compat"
    return found


@contextmanager
def engine(cwd: Path, **settings: str) -> Iterator[str]:
    """An engine of 0.1.0 in a folder that has its settings file; its address."""
    first = free_ports(5)
    flags = ["--router-frontend", str(first), "--router-backend", str(first + 1), "--starting-port", str(first + 2)]
    flags += [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", value)]
    address = f"tcp://127.0.0.1:{first}"
    keys = settings.get("keys")
    if keys is not None:
        pair(Path(keys), address)
    command = [str(python()), "-m", "taskengine", "serve", "--pins", "mock", *flags]
    with (cwd / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        with Client(address, timeout=deadline(1.0), keys=keys) as client:
            wait_until(lambda: _answers(client) or process.poll() is not None, 20.0, "the engine of 0.1.0")
        assert process.poll() is None, (cwd / "output").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(deadline(20.0))


def pair(keys: Path, address: str) -> None:
    """Have an engine let one client in, whose key is in the same folder."""
    ring = KeyRing(keys)
    ring.accept(ring.pair("robot", address))


def _answers(client: Client) -> bool:
    try:
        client.call("devices.state")
    except TaskEngineError:
        return False
    return True
