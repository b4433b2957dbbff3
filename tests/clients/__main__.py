"""`python -m tests.clients`: run the tests of this folder, clients in other languages; arguments go to pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JAVASCRIPT = Path(__file__).resolve().parent / "javascript"


def prepare() -> None:
    """Have the client's packages as the lock file names them, or end."""
    from tests.clients.node import command

    ran = subprocess.run([*command("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=JAVASCRIPT)
    if ran.returncode:
        sys.exit("tests.clients: npm cannot install what tests/clients/javascript/package-lock.json names")


if __name__ == "__main__":
    prepare()
    pytest = [sys.executable, "-m", "pytest", "tests/clients", *sys.argv[1:]]
    sys.exit(subprocess.run(pytest, cwd=ROOT, env={**os.environ, "OTHER_CLIENTS": "1"}, check=False).returncode)
