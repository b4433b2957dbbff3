"""Race a worker and a router for the tasks of a million batches: python -m tests.claims [ROUNDS]."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.claims.programs import compiled, race

ROUNDS = 1_000_000

with tempfile.TemporaryDirectory() as folder:
    told = race(
        compiled("races.c", Path(folder, "races"), "-pthread"),
        "processes",
        int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS,
    )
print(told, end="")
sys.exit(not told.startswith("exit code 0:"))
