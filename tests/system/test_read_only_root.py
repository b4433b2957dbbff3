"""The engine in the container that docs/docker.md describes: a read-only root, and 64 MiB of /dev/shm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine import deadline, free_ports

ROOT = Path(__file__).resolve().parents[2]
SPACE = [
    "unshare",
    *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
]
MOUNTS = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o size=64m shm /dev/shm
mount -t tmpfs -o size=16m,mode=1777 tmp "$TMPDIR"
for place in $(findmnt --list --noheadings --real --output TARGET); do
    mount -o remount,bind,ro "$place"
done
cd "$1"
if touch written /written 2>/dev/null; then exit 3; fi
test ! -e written
test ! -e /written
shift
exec "$@"
"""
USE = """
import signal, subprocess, sys
import numpy
from taskengine import Client, EngineUnreachable

first, flags = int(sys.argv[1]), sys.argv[2:]
engine = subprocess.Popen([sys.executable, "-m", "taskengine", "serve", *flags], stdout=subprocess.DEVNULL)
with Client(f"tcp://127.0.0.1:{first}", timeout=20.0) as client:
    print(len(client.map("arm.elbow", [0.1] * 4000, [0.1] * 4000)))
    print(client.call("arm.elbow", 0.1, 0.1) == client.run([("arm.elbow", (0.1, 0.1), {})])[0])
    print(client.call("devices.write", {"lamp": True}))
    with client.subscribe("hardware.lamp") as feed:  # published by another way than the answer's
        next(sample for sample in feed if sample.value["value"])
    print(client.latest("hardware.lamp")["value"])
engine.send_signal(signal.SIGTERM)
print(engine.wait(20))
"""

pytestmark = pytest.mark.system


def test_it_works_with_a_read_only_root_and_64_mib_of_shared_memory(tmp_path: Path) -> None:
    allowed = subprocess.run([*SPACE, "mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    assert not allowed.returncode, f"this machine lets nobody make namespaces: {allowed.stderr}"
    first = free_ports(6)
    ports = {"router-frontend": first, "router-backend": first + 1, "starting-port": first + 2, "stop-port": first + 5}
    flags = ["--pins", "mock", *(word for name, port in ports.items() for word in (f"--{name}", str(port)))]
    program = [sys.executable, "-c", USE, str(first), *flags]
    ran = subprocess.run(
        [*SPACE, "sh", "-c", MOUNTS, "sh", str(ROOT / "examples"), *program],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nowhere", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=deadline(60.0),
        check=False,
    )
    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, ["4000", "True", "None", "True", "0"], "")
