"""The client in JavaScript, written from docs/protocol.md and its golden messages alone, against real engines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskengine.keys import KeyRing, new_pair
from tests import vectors
from tests.clients.__main__ import JAVASCRIPT
from tests.clients.node import command
from tests.engine import Engine, deadline

LEASE = deadline(1.5)
"""In s: nothing of what is done under it takes as long, on a slow machine neither."""
DEVICES = f"""
[hardware.devices.pan]
type = "AngularServo"
pin = 18
lease = {LEASE}

[hardware.devices.grip]
type = "Servo"
pin = 19

[hardware.devices.lamp]
type = "LED"
pin = 17

[hardware.devices.hip]
type = "Servo"
pin = 4
lane = "legs"
"""
LEAST_CHECKS = 120
"""Each golden message is a check, and so is each request of each wire."""


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Engine]:
    (folder / "taskengine.toml").write_text(DEVICES)
    with Engine(cwd=folder, pins="mock", enable_stdout="false", **settings) as engine:
        yield engine


def conformance(**config: Any) -> dict[str, str | None]:
    """Run the client's checks; each with None, for why it failed."""
    given = json.dumps({**config, "vectors": str(vectors.FILE), "lease": LEASE, "patience": deadline(20_000)})
    ran = subprocess.run(
        [*command("node"), "conformance.mjs", given],
        cwd=JAVASCRIPT,
        capture_output=True,
        text=True,
        timeout=deadline(100),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, str | None] = json.loads(ran.stdout.splitlines()[-1])
    assert len(found) > LEAST_CHECKS
    failures = [f"{name}: {why}" for name, why in found.items() if why]
    assert not failures, "\n\n".join(failures)
    return found


@pytest.mark.system
def test_plain(tmp_path: Path) -> None:
    with served(tmp_path) as engine:
        conformance(address=engine.address)


@pytest.mark.system
def test_encrypted(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys")
    with served(tmp_path, curve="on", keys=ring.folder) as engine:
        line, own = ring.pair("node", engine.address), new_pair()
        found = conformance(address=engine.address, pair=line, stranger={"public": own.public, "secret": own.secret})
    assert "CURVE: a stranger gets no reply" in found
