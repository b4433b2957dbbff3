"""The fixtures that we ship: an engine of a folder's settings with simulated pins, also where it has a policy."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from taskengine import NotAllowed
from taskengine.config.loading import load
from taskengine.testing import EngineUnderTest, free_ports
from tests.engine import wait_until

SETTINGS = """
tasks = ["robot.py"]
pins = "lgpio"
host = "0.0.0.0"
user = "nobody-at-all"
metrics_port = 9100
[hardware.devices.lamp]
type = "LED"
pin = 4
[policy.laptop]
tasks = ["gpio.*", "devices.state", "twice"]
devices = ["lamp"]
"""
ROBOT = """
from taskengine import task
@task(name="twice")
def twice(value: int) -> int:
    print("asked for", value)
    return 2 * value
@task(name="secret")
def secret() -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "taskengine.toml").write_text(SETTINGS)
    (tmp_path / "robot.py").write_text(ROBOT)
    (tmp_path / "tests").mkdir()
    return tmp_path


def test_a_policy_holds_for_the_client_by_its_name(folder: Path) -> None:
    with EngineUnderTest(folder / "tests", "laptop", task_workers=1) as engine, engine.client() as client:
        assert engine.keys is not None
        assert engine.folder == folder
        assert client.call("twice", 4) == 8
        client.call("gpio.write", "lamp", True)
        assert client.call("devices.state", "lamp")["lamp"]["value"] is True
        with pytest.raises(NotAllowed):
            client.call("secret")
        assert client.info().task_workers == 1
        wait_until(lambda: "asked for 4" in engine.output(), 10, "the line")
    engine.close()


def test_an_engine_that_does_not_start_says_why(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=rf"did not start; it printed:\n(.|\n)*{port}"):
            EngineUnderTest(folder, "laptop", router_frontend=port)


def test_ports_are_beside_each_other_for_any_numbers_of_workers() -> None:
    settings = load(None, {}, {"task_workers": 5, "data_workers": 3})
    ports = free_ports(settings)
    assert len(set(ports.values())) == 4
    served = load(None, {}, {"task_workers": 5, "data_workers": 3, **ports})
    assert served.data_ports()[0] == ports["stop_port"] + 1
