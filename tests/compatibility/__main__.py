"""`python -m tests.compatibility`: have version 0.1.0, and run the tests of this folder; arguments go to pytest."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.compatibility import old

if __name__ == "__main__":
    old.build()
    command = [sys.executable, "-m", "pytest", "tests/compatibility", *sys.argv[1:]]
    environ = {**os.environ, "COMPATIBILITY": old.VERSION}
    sys.exit(subprocess.run(command, cwd=old.ROOT, env=environ, check=False).returncode)
