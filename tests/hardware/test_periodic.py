"""A periodic task that drives does so as a client, as docs/tasks.md shows; no task of a lane with pins is periodic."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from taskengine import Client, NotAllowed
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, free_ports, wait_until
from tests.system.test_docs import ADDRESS, blocks, run_taskengine

HARDWARE = '[hardware.devices.pan]\ntype = "AngularServo"\npin = 18\nmin_angle = -90\nmax_angle = 90\n'
WATCHER = """
[policy.watcher]
tasks = ["*"]
devices = ["*"]
calls = ["stats"]
"""


@pytest.mark.system
def test_the_example_of_a_task_that_drives_drives_under_a_lease_and_a_policy(tmp_path: Path) -> None:
    [module] = [block for block in blocks("docs/tasks.md", "python") if "look_around" in block]
    [policy] = [block for block in blocks("docs/tasks.md", "toml") if "policy" in block]
    (tmp_path / "taskengine.toml").write_text(f"{policy}\n{WATCHER}\n{HARDWARE}")
    ring, port = KeyRing(tmp_path / "keys"), free_ports(6)
    address = f"tcp://127.0.0.1:{port}"
    for name in ("patrol", "watcher"):
        KeyRing(tmp_path / f"{name}-keys").accept(ring.pair(name, address))
    timed = module.replace(ADDRESS, address).replace('at="07:30"', "every=0.3")
    (tmp_path / "robot.py").write_text(timed)
    ports: dict[str, Any] = {
        "router_frontend": port,
        "router_backend": port + 1,
        "starting_port": port + 2,
        "stop_port": port + 5,
    }
    with (
        Engine(cwd=tmp_path, pins="mock", keys=tmp_path / "keys", tasks="robot.py", **ports) as engine,
        Client(engine.address, keys=tmp_path / "watcher-keys", timeout=deadline(20.0)) as client,
    ):

        def last() -> str:
            return client.stats().schedules[0].last

        wait_until(lambda: last() == "looked around", 20, "a run")
        wait_until(lambda: client.call("devices.state")["pan"]["value"] == 60.0, 20, "the last angle")
        client.call("system.stop")
        wait_until(lambda: "NotAllowed" in last(), 20, "a run that the stop has stopped")
        client.arm()

        def is_kept_out() -> bool:
            with contextlib.suppress(NotAllowed):  # the task has the servo just now
                client.call("lease.acquire", ["pan"], exclusive=True)
            return "holds pan exclusively" in last()

        wait_until(is_kept_out, 20, "a run while another client has the servo")


@pytest.mark.parametrize(
    ("options", "said"),
    [("every=1.0", "runs every 1 s"), ("at='07:30'", "runs at 07:30"), ("retries=1", "has retries")],
)
def test_a_module_with_a_periodic_task_among_the_pins_is_left_out(options: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "taskengine.toml").write_text(HARDWARE)
    (tmp_path / "own.py").write_text(
        f"from taskengine import task\n@task(lane='hardware', {options})\ndef nod(): ...\n"
    )
    checked = run_taskengine("check", "--tasks", "own.py", "--pins", "mock", folder=tmp_path)
    assert checked.returncode == 2
    assert f"nod {said}, and lane 'hardware' has pins" in checked.stderr
    assert "task nod" not in checked.stdout
