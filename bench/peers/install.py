"""`python -m bench.peers.install PYTHON`: install what the peers need, each by itself, and go on where one fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from bench.peers.play import NAMES
from bench.peers.redis import SERVER


def main() -> int:
    """The exit code: 0, for a peer that is missing is named when the others are measured."""
    python = sys.argv[1]
    for name, packages in NAMES.items():
        if not is_there(python, name):
            print(f"bench-peers: installing {name}", file=sys.stderr)
            call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    if not shutil.which(SERVER):
        install_redis()
    return 0


def is_there(python: str, module: str) -> bool:
    """Whether that Python can import the module; not imported, which takes long."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-I", "-c", code], check=False).returncode == 0


def install_redis() -> None:
    """From the system's packages, where we may."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"bench-peers: installing {SERVER}", file=sys.stderr)
        call("apt-get", "update", "-qq")
        call("apt-get", "install", "-y", "-qq", SERVER)
    else:
        print(f"bench-peers: {SERVER} is missing: apt install {SERVER}", file=sys.stderr)


def call(*command: str) -> None:
    """Run a command; what it prints is for stderr, and where it fails that is told and no more."""
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        print(f"bench-peers: failed: {' '.join(command)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
