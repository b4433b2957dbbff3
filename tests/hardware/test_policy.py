"""Rights to use devices, and to stop the machine, at a running engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from taskengine import BadArguments, Client, NotAllowed, Overloaded, _fastpath
from taskengine.client.calls import Call
from taskengine.protocol.messages import Request, RequestKind, encode_request
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, wait_until

pytestmark = pytest.mark.alone

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

[policy.painter]
tasks = ["servo.*"]
devices = ["pa*"]

[policy.guard]
tasks = ["system.*"]
rate = 3
"""


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Client]]:
    """Makes a client with a key of its own."""
    folder = tmp_path_factory.mktemp("ruled")
    (folder / "taskengine.toml").write_text(SETTINGS)
    # as for clients of other machines: by the guardian's socket, in the run folder, the engine's user may always stop
    env = {"XDG_RUNTIME_DIR": str(folder)}
    with Engine(cwd=folder, pins="mock", keys=folder / "keys", enable_stdout="false", env=env) as engine:

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


def test_no_name_tells_of_a_device_that_the_policy_hides(connect: Callable[[str], Client]) -> None:
    with connect("laptop") as laptop:
        told = []
        for name in ("tilt", "never"):  # one that is there, one that is not
            for call in ("lease.release", "lease.acquire", "lease.renew"):
                with pytest.raises(NotAllowed) as refused:
                    laptop.call(call, [name])
                told.append(str(refused.value).replace(name, "*"))
        assert len(set(told)) == 1
        laptop.call("lease.release", ["pan"])
    with connect("painter") as painter, pytest.raises(BadArguments, match="no output is named 'panel'") as unknown:
        painter.call("servo.set", "panel", 0)
    assert "tilt" not in str(unknown.value)


def test_who_may_not_stop_the_machine_does_not(
    connect: Callable[[str], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    # this process is the engine's own user, who may stop it by the guardian's socket whatever its key
    monkeypatch.setattr("taskengine.client.stopping.stop_path", lambda address: None)
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
        with pytest.raises(NotAllowed, match=r"lease\.acquire"):
            laptop.call("servo.set", "pan", 0)
        laptop.call("lease.acquire", ["pan"])
        laptop.call("servo.set", "pan", 0)


def test_a_rate_keeps_nobody_from_stopping(connect: Callable[[str], Client]) -> None:
    with connect("guard") as guard, connect("laptop") as laptop:
        laptop.call("servo.set", "pan", 0.5)
        for _ in range(20):
            guard.call("system.stop")
        with pytest.raises(NotAllowed, match=r"system\.arm"):
            laptop.call("servo.set", "pan", 0)
        wait_until(lambda: _arms(guard), 5, "the rate")


def _arms(guard: Client) -> bool:
    try:
        guard.call("system.arm")
    except Overloaded:
        return False
    return True


def test_a_second_connection_of_the_same_key_is_another_client(connect: Callable[[str], Client]) -> None:
    with connect("laptop") as first, connect("laptop") as second, first.lease("pan", exclusive=True):
        with pytest.raises(NotAllowed, match="another client holds pan"):
            second.call("servo.set", "pan", 0)
        first.call("servo.set", "pan", 0)


OPEN = """
[hardware.devices.lamp]
type = "LED"
pin = 17

[policy.anonymous]
tasks = ["gpio.*"]
devices = ["*"]
"""


@pytest.mark.parametrize(
    ("names", "calls"),
    [
        (["system.stop"], []),
        (["system.stop", "gpio.read"], [("gpio.read", ("lamp",), {})]),
        (["system.stop"], [("system.stop", (), {})]),
    ],
)
def test_a_name_alone_stops_nothing(tmp_path: Path, names: list[str], calls: list[Call]) -> None:
    """Neither that of a task which no call in the package has, nor that of one which its client may not call."""
    (tmp_path / "taskengine.toml").write_text(OPEN)
    with Engine(cwd=tmp_path, pins="mock", curve="off", enable_stdout="false") as engine:
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(engine.address)
            index, body = _fastpath.pack_calls(calls, {name: place for place, name in enumerate(names)})
            stranger.send_multipart([encode_request(Request(RequestKind.PACKAGE, 1, "x", names)), index, body])
            assert stranger.poll(int(deadline(20) * 1000))
        with Client(engine.address, timeout=deadline(20)) as client:
            client.call("gpio.write", "lamp", True)
