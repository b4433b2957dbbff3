"""Releases that do not fit: each side says which they are, and what to do, instead of a timeout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

import taskengine
from taskengine import Client, ProtocolError
from taskengine.protocol.messages import Info
from tests.engine import Engine, deadline
from tests.integration.listener import Listener

pytestmark = pytest.mark.system
REMEDY = "install the same release on both machines"


@pytest.fixture
def other_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an engine that gives each request the same answer, in a wire that we do not know."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                if router.poll(10):
                    router.send_multipart([router.recv_multipart()[0], request.param])

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{port}"
        ending.set()
        thread.join()


@pytest.mark.parametrize(
    ("other_engine", "told"),
    [(b"TE\x03\x90", r"speaks wire 0\.3"), (b'{"type":"ACK","error":"no JSON"}', r"not know wire 0\.2.*no JSON")],
    indirect=["other_engine"],
)
def test_a_client_of_an_engine_with_another_wire(other_engine: str, told: str) -> None:
    with Client(other_engine, timeout=deadline(20)) as client, pytest.raises(ProtocolError, match=f"{told}.*{REMEDY}"):
        client.call("task_count", 2, 3)


def test_an_engine_names_its_release_and_answers_a_client_with_another_wire() -> None:
    with Engine() as engine, zmq.Context() as context, context.socket(zmq.DEALER) as newer:
        newer.linger = 0
        newer.connect(engine.address)
        newer.send_multipart([b"TE\x03\x90", b"", b""])
        assert newer.poll(int(1000 * deadline(20)))
        (meta,) = newer.recv_multipart()
        assert re.search(rf"the client speaks wire 0\.3.*wire 0\.2 at most: {REMEDY}", json.loads(meta)["error"])
        with Client(engine.address, timeout=deadline(20)) as client:
            assert client.info().release == taskengine.__version__
            assert client.call("task_count", 2, 3) == 2.5


def test_a_stream_of_an_engine_that_has_none() -> None:
    old = Info(2, 0.005, 10, 2, [], 1, ["clock"], release="0.1.7")
    with Listener(info=old) as engine, Client(engine.address, timeout=deadline(20)) as client:
        named = f"the engine is taskengine 0.1.7, which has no streams; this client is {taskengine.__version__}"
        with pytest.raises(ProtocolError, match=re.escape(named)):
            next(iter(client.stream("task_count", 2, 3)))


def test_compiled_modules_of_another_release(tmp_path: Path) -> None:
    shutil.copytree(Path(taskengine.__file__).parent, tmp_path / "taskengine", ignore=shutil.ignore_patterns("*.c"))
    door = tmp_path / "taskengine" / "__init__.py"
    door.write_text(door.read_text().replace(f'"{taskengine.__version__}"', '"9.9.9"'))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "taskengine", "call", "task_count", "2", "3"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=deadline(60),
    )
    ours = taskengine.__version__
    wanted = f"was compiled for taskengine {ours}, and the Python files beside it are of 9.9.9: install"
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert wanted in done.stderr
