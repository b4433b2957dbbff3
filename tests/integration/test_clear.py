"""A client speaks to the engine that it means, and in clear to another machine only if it is told to.

0.0.0.0 stands for another machine: a client takes it for one, and Linux leads back to this one.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskengine import Client, KeysError, NotAllowed, aio
from taskengine.client.stopping import Stopping, Target, new_order
from taskengine.security.keys import KeyRing, fingerprint, new_pair
from tests.engine import Engine, deadline
from tests.integration.listener import INFO, SILENCE, Listener


def elsewhere(address: str) -> str:
    """The same address as that of another machine."""
    return address.replace("127.0.0.1", "0.0.0.0")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "taskengine", *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=deadline(30), check=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyRing:
    """Keys of our own, so far none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return KeyRing()


MAKERS = pytest.mark.parametrize("make", [Client, aio.Client])


@MAKERS
def test_a_client_does_not_speak_in_clear_to_another_machine(make: Callable[[str], Any]) -> None:
    with Listener() as engine:
        with pytest.raises(KeysError, match="or say insecure=True"):
            make(elsewhere(engine.address))
        assert engine.heard == []


def test_but_it_does_where_it_is_told_to() -> None:
    async def call(address: str) -> Any:
        async with aio.Client(address, timeout=deadline(10), insecure=True) as client:
            return await client.call("x")

    with Listener() as engine:
        with Client(elsewhere(engine.address), timeout=deadline(10), insecure=True) as client:
            client.call("x")
            client.stop()
        asyncio.run(call(elsewhere(engine.address)))
        assert engine.names() == ["x", "x"]


def test_nor_do_the_commands() -> None:
    with Listener() as engine:
        at = ("--address", elsewhere(engine.address))
        for arguments in (("call", "x"), ("stop",), ("tasks",), ("reload",), ("top", "--once")):
            refused = command(*arguments, *at)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert "--insecure" in refused.stderr
        assert engine.heard == []
        for arguments in (("call", "x"), ("stop",)):
            assert command(*arguments, *at, "--insecure").returncode == 0


def test_a_stop_goes_nowhere_in_clear_either() -> None:
    with Listener(lambda heard: SILENCE) as port, Listener(lambda heard: None) as engine:
        with pytest.raises(KeysError):
            Stopping(Target(elsewhere(engine.address), None), new_order()).run()
        with pytest.raises(KeysError):
            Stopping(Target(engine.address, None, stop_address=elsewhere(port.address)), new_order()).run()
        assert engine.heard == []
        # where it is the engine that names it, the other ways are taken
        info = msgspec.structs.replace(INFO, stop_address=port.address.replace("127.0.0.1", "127.1"))
        Stopping(Target(engine.address, None, info=info), new_order(), deadline(5)).run()
        assert port.heard == []
        Stopping(Target(elsewhere(engine.address), None, insecure=True), new_order(), deadline(5)).run()


@pytest.fixture
def robot(tmp_path: Path) -> KeyRing:
    """The keys of an engine."""
    return KeyRing(tmp_path / "robot")


def test_an_engine_is_known_by_another_address_and_by_its_name(robot: KeyRing, home: KeyRing) -> None:
    with Engine(curve="on", keys=robot.folder) as engine:
        home.accept(robot.pair("laptop", "tcp://robot.local:9000"))

        def count(**more: Any) -> Any:
            with Client(engine.address, timeout=deadline(20), **more) as client:
                return client.call("task_count", 2, 3)

        assert count(keys=home.folder) == 2.5
        home.join("tcp://other.local:9000", new_pair().public, "laptop")
        with pytest.raises(KeysError, match="say which"):
            count(keys=home.folder)
        assert count(engine="robot") == 2.5
        with pytest.raises(KeysError, match="no key for engine 'robbie'"):
            count(engine="robbie")
        counted = command("call", "task_count", "2", "3", "--address", engine.address, "--engine", "robot.local")
        assert (counted.returncode, counted.stdout) == (0, "2.5\n")


@pytest.mark.parametrize("curve", ["on", "off"])
def test_a_handshake_that_does_not_complete_names_the_key_that_was_expected(
    robot: KeyRing, home: KeyRing, curve: str
) -> None:
    robot.engine()
    with Engine(curve=curve, keys=robot.folder) as engine:
        known = home.join(engine.address, new_pair().public, "laptop")
        with (
            Client(engine.address, timeout=deadline(10)) as client,
            pytest.raises(NotAllowed, match="its key may have changed") as refused,
        ):
            client.call("task_count", 2, 3)
        assert fingerprint(known.engine) in str(refused.value)
        with pytest.raises(NotAllowed, match="its key may have changed"):
            Stopping(Target(engine.address, known), new_order(), deadline(2)).run()
