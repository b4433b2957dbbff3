"""What an engine and a client do not import, since on a Pi each module costs memory and time."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINE = (
    "taskengine.supervisor.supervisor, taskengine.router.router, taskengine.worker.worker, taskengine.worker.publisher"
)
NOT_LOADED = {"asyncio", "ssl", "numpy", "gpiozero", "rich", "prometheus_client", "cronsim", "zeroconf"}


@pytest.mark.parametrize("modules", ["taskengine.client.blocking", ENGINE])
def test_heavy_modules_are_imported_where_they_are_used(modules: str) -> None:
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not NOT_LOADED & set(done.stdout.split())
