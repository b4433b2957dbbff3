"""The stop port of an engine with keys and a policy, and what becomes of the machine after its owner's death."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from taskengine import Client, NotAllowed
from taskengine.protocol.messages import Reply, Request, RequestKind, decode_reply, encode_request
from taskengine.security.credentials import introduce
from taskengine.security.keys import KeyRing
from tests.engine import Engine, deadline, wait_until

SETTINGS = """
[hardware.devices.wheel]
type = "Motor"
forward = 20
backward = 21
lease = 3600

[policy.laptop]
tasks = ["motor.*", "lease.*"]
devices = ["*"]
subscribe = ["hardware.*"]

[policy.guard]
tasks = ["system.*"]
"""
ID = bytes(16)
Ask = Callable[..., Reply]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "taskengine.toml").write_text(SETTINGS)
    return tmp_path


@pytest.fixture
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(cwd=folder, pins="mock", keys=folder / "keys", enable_stdout="false") as engine:
        (owner,) = engine.pids("pin")
        wait_until(lambda: f"[WORKER-{owner}(TASK)] Listener online" in engine.output(), 10, "the owner")
        yield engine


@pytest.fixture
def keys(folder: Path, engine: Engine) -> dict[str, Path]:
    """The folders of clients' keys, by their names."""
    folders = {name: folder / name for name in ("laptop", "guard")}
    for name, path in folders.items():
        KeyRing(path).accept(KeyRing(folder / "keys").pair(name, engine.address))
    return folders


@pytest.fixture
def ask(keys: dict[str, Path], engine: Engine) -> Iterator[Ask]:
    """Ask the stop port, as the client of this name, for a stop or something else."""
    with zmq.Context() as context:

        def ask(name: str, *, id: bytes = ID, kind: RequestKind = RequestKind.STOP) -> Reply:
            with context.socket(zmq.DEALER) as dealer:
                dealer.rcvtimeo, dealer.linger = int(1000 * deadline(5)), 0
                introduce(dealer, KeyRing(keys[name]).membership(engine.address))
                dealer.connect(f"tcp://127.0.0.1:{engine.settings['stop_port']}")
                head = encode_request(Request(kind, 7, "claims to be somebody else"))
                dealer.send_multipart([head, msgspec.msgpack.encode((id, "smoke"))])
                return decode_reply(dealer.recv_multipart()[0])

        yield ask


def test_who_may_stops_it_and_who_may_not_does_not(ask: Ask, folder: Path, engine: Engine) -> None:
    denied = ask("laptop")
    assert denied.error is not None
    assert "does not let client 'laptop' stop the machine" in denied.error[1]
    # its owner may still be starting: the same stop again
    wait_until(lambda: ask("guard").error is None, 10, "the confirmation")
    done = ask("guard")
    assert (done.serial, done.error, done.stop) == (7, None, 1)
    assert ask("guard", id=b"another").stop == 2
    lines = [json.loads(line) for line in (folder / "keys" / "audit.jsonl").read_text().splitlines()]
    noted = [(line["event"], line.get("client")) for line in lines if line["event"] in ("refused", "stopped")]
    assert (noted[0], set(noted[1:])) == (("refused", "laptop"), {("stopped", "guard")})


def test_a_renewed_policy_holds_without_a_restart(ask: Ask, folder: Path, engine: Engine) -> None:
    listeners = engine.pids("stop"), engine.pids("guard")
    assert all(listeners)
    exchanged = SETTINGS.replace("policy.laptop", "policy.driver").replace("policy.guard", "policy.laptop")
    (folder / "taskengine.toml").write_text(exchanged)
    engine.process.send_signal(signal.SIGHUP)

    def refusal(name: str) -> str:
        error = ask(name).error
        return "" if error is None else error[1]

    wait_until(lambda: "does not let client 'guard' stop" in refusal("guard"), 20, "the policy at the stop port")
    wait_until(lambda: refusal("laptop") == "", 10, "the confirmation")
    assert (engine.pids("stop"), engine.pids("guard")) == listeners


def test_it_takes_nothing_but_stops(ask: Ask) -> None:
    refused = ask("guard", kind=RequestKind.INFO)
    assert refused.error is not None
    assert "this port takes STOP and nothing else" in refused.error[1]


def test_a_stranger_is_not_answered(engine: Engine) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.rcvtimeo, dealer.linger = 500, 0
        dealer.connect(f"tcp://127.0.0.1:{engine.settings['stop_port']}")
        dealer.send_multipart([encode_request(Request(RequestKind.STOP, 7, "guard")), msgspec.msgpack.encode((ID, ""))])
        with pytest.raises(zmq.Again):
            dealer.recv_multipart()


def test_one_key_does_not_take_all_connections(folder: Path) -> None:
    """A client that had all connections kept everybody else's stops out."""
    with (
        Engine(cwd=folder, pins="mock", keys=folder / "keys", connections=16) as engine,
        contextlib.ExitStack() as held,
    ):
        ring = KeyRing(folder / "keys")
        members = {name: KeyRing(folder / name).accept(ring.pair(name, engine.address)) for name in ("laptop", "guard")}
        head = encode_request(Request(RequestKind.STOP, 7, "x"))
        context = held.enter_context(zmq.Context())

        def knock(name: str) -> zmq.Socket[bytes]:
            dealer: zmq.Socket[bytes] = held.enter_context(context.socket(zmq.DEALER))
            dealer.linger, dealer.reconnect_ivl = 0, -1
            introduce(dealer, members[name])
            dealer.connect(f"tcp://127.0.0.1:{engine.settings['stop_port']}")
            dealer.send_multipart([head, msgspec.msgpack.encode((ID, "smoke"))])
            return dealer

        for _ in range(300):
            knock("laptop")
        audit = folder / "keys" / "audit.jsonl"
        wait_until(lambda: audit.exists() and '"cut off"' in audit.read_text(), 20, "their end")
        guard = knock("guard")
        assert guard.poll(int(1000 * deadline(5)))
        assert decode_reply(guard.recv_multipart()[0]).error is None


def test_a_listener_that_dies_is_replaced(ask: Ask, engine: Engine) -> None:
    (listener,) = engine.pids("stop")
    os.kill(listener, signal.SIGKILL)
    wait_until(lambda: engine.pids("stop") not in ([], [listener]), 5, "another one")
    assert ask("guard").stop == 1


def test_a_drives_owner_that_dies_stops_the_machine_until_it_is_armed(keys: dict[str, Path], engine: Engine) -> None:
    with (
        Client(engine.address, timeout=deadline(20), keys=keys["laptop"]) as driver,
        Client(engine.address, timeout=deadline(20), keys=keys["guard"]) as keeper,
    ):
        driver.call("motor.forward", "wheel")
        (owner,) = engine.pids("pin")
        os.kill(owner, signal.SIGKILL)

        def system() -> dict[str, Any]:
            told: dict[str, Any] = driver.latest("hardware.system")
            return told

        wait_until(lambda: not system()["armed"], 5, "the guardian")
        told = system()
        assert (told["by"], told["why"]) == ("guardian", "the owner of lane hardware died")
        assert told["lanes"]["hardware"]["faults"] == 1
        wait_until(lambda: driver.latest("hardware.wheel")["value"] == 0, 5, "what is true now")
        assert driver.latest("hardware.wheel")["source"] == "guardian"
        wait_until(lambda: system()["lanes"]["hardware"]["generation"] == 2, 10, "another owner")
        with pytest.raises(NotAllowed):
            driver.call("motor.forward", "wheel")
        keeper.call("system.arm", system()["stop"])
        wait_until(lambda: system()["armed"], 5, "the guardian's word")
        driver.call("lease.acquire", ["wheel"])
        driver.call("motor.forward", "wheel")
