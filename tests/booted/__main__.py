"""`python -m tests.booted`: run the tests of this folder, which need root and systemd; arguments go to pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.booted.machine import MANAGER

ROOT = Path(__file__).resolve().parents[2]


def prepare() -> None:
    """Have what is needed, or end."""
    if os.geteuid() != 0:
        sys.exit("tests.booted: only root makes namespaces: sudo make test-systemd")
    if not MANAGER.exists():
        print("installing systemd, which is not started", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=sys.stderr)
        subprocess.run(["apt-get", "install", "-y", "-qq", "systemd"], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    prepare()
    command = [sys.executable, "-m", "pytest", "tests/booted", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, "BOOTS_SYSTEMD": "1"}, check=False).returncode)
