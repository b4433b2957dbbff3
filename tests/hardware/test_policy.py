"""Who may use which device, and who may stop the machine, at a running engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from taskengine import Client, NotAllowed
from taskengine.keys import KeyRing
from taskengine.session import Call
from tests.engine import Engine, deadline

SETTINGS = """
[hardware.devices.pan]
type = "Servo"
pin = 18
lease = 3600

[hardware.devices.tilt]
type = "Servo"
pin = 19
lease = 3600

[policy.laptop]
tasks = ["servo.*", "devices.*", "lease.*"]
devices = ["pan"]
subscribe = ["hardware.pan*"]

[policy.guard]
tasks = ["system.*"]
"""


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Client]]:
    """Makes a client with a key of its own."""
    folder = tmp_path_factory.mktemp("ruled")
    (folder / "taskengine.toml").write_text(SETTINGS)
    with Engine(cwd=folder, pins="mock", keys=folder / "keys", enable_stdout="false") as engine:

        def connect(name: str) -> Client:
            keys = folder / name
            if not keys.exists():
                KeyRing(keys).accept(KeyRing(folder / "keys").pair(name, engine.address))
            return Client(engine.address, timeout=deadline(20), keys=keys)

        yield connect


def test_devices_are_those_of_the_policy(connect: Callable[[str], Client]) -> None:
    with connect("laptop") as laptop:
        laptop.call("servo.set", "pan", 0.5)
        assert laptop.call("devices.state").keys() == {"pan"}
        calls: list[Call] = [
            ("servo.set", ("tilt", 0), {}),
            ("servo.set", ("pan", 0.25), {}),
            ("lease.acquire", (["tilt"],), {}),
        ]
        results = laptop.options(errors="return").run(calls)
        assert [type(result) for result in results] == [NotAllowed, type(None), NotAllowed]
        assert laptop.call("devices.state", "pan")["pan"]["value"] == 0.25


def test_who_may_not_stop_the_machine_does_not(connect: Callable[[str], Client]) -> None:
    with connect("laptop") as laptop, connect("guard") as guard:
        with pytest.raises(NotAllowed):
            laptop.call("system.stop")
        results = laptop.options(errors="return").run([("system.stop", (), {}), ("servo.set", ("pan", 0.5), {})])
        assert [type(result) for result in results] == [NotAllowed, type(None)]
        guard.call("system.stop")
        with pytest.raises(NotAllowed, match=r"system\.arm"):
            laptop.call("servo.set", "pan", 0)
        with pytest.raises(NotAllowed):
            laptop.call("system.arm")
        guard.call("system.arm")
        laptop.call("servo.set", "pan", 0)


def test_a_second_connection_of_the_same_key_is_another_client(connect: Callable[[str], Client]) -> None:
    with connect("laptop") as first, connect("laptop") as second, first.lease("pan", exclusive=True):
        with pytest.raises(NotAllowed, match="another client has pan"):
            second.call("servo.set", "pan", 0)
        first.call("servo.set", "pan", 0)
