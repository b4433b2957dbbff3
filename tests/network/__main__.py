"""`python -m tests.network`: run the tests of this folder, which need root and iproute2; arguments go to pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.engine import alive
from tests.network.lines import NETNS, ip

ROOT = Path(__file__).resolve().parents[2]
TUN = Path("/dev/net/tun")


def prepare() -> None:
    """Have what is needed, or end."""
    if os.geteuid() != 0:
        sys.exit("tests.network: only root makes network namespaces: sudo make test-network")
    if shutil.which("ip") is None:
        print("installing iproute2", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=sys.stderr)
        subprocess.run(["apt-get", "install", "-y", "-qq", "iproute2"], check=True, stdout=sys.stderr)
    if not TUN.exists():
        sys.exit(f"tests.network: this machine has no {TUN}: modprobe tun")
    tidy()


def tidy() -> None:
    """Remove the namespaces of trials that were killed."""
    for namespace in NETNS.glob("te-*-*") if NETNS.is_dir() else ():
        if not alive(int(namespace.name.split("-")[1])):
            ip("netns", "delete", namespace.name)


if __name__ == "__main__":
    prepare()
    command = [sys.executable, "-m", "pytest", "tests/network", *sys.argv[1:]]
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, "NETWORK_NAMESPACES": "1"}, check=False).returncode)
