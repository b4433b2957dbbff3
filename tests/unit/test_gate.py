from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import zmq

from taskengine._socket import Port, Waiter
from taskengine.errors import ProtocolError
from taskengine.gate import Backplane
from taskengine.procfs import peer_process
from tests.engine import deadline


def _say(address: str, frames: list[bytes]) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(address)
        dealer.send_multipart(frames)
        dealer.recv()  # while it is looked who has said that


def said(address: str, frames: list[bytes], process: int | None) -> tuple[list[bytes], int]:
    """What a router receives of another process, or of ours, and of which process it is by the socket."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as own:
        router.bind(address)
        port = Port(router)
        if process is None:
            own.connect(address)
            own.send_multipart(frames)
        else:
            other = multiprocessing.get_context("spawn").Process(target=_say, args=(address, frames), daemon=True)
            other.start()
        assert Waiter(port).wait(int(deadline(20) * 1000))
        received = port.receive()
        assert received is not None
        peer = peer_process(port.descriptor)
        if process is not None:
            router.send_multipart([received[0], b"seen"])
            other.join()
    return received[1:], peer


def test_a_worker_is_the_process_at_the_other_end_and_nobody_else(tmp_path: Path) -> None:
    backplane = Backplane(f"ipc://{tmp_path}/backend", b"t" * 32, None)
    frames = backplane.hello("TASK-1", "", 0)
    _, proof, hello = frames
    heard, peer = said(backplane.address, frames, None)
    assert heard == frames
    assert peer == os.getpid()
    assert backplane.read_hello(proof, hello, peer).name == "TASK-1"
    heard, peer = said(backplane.address, frames, 1)
    assert heard == frames
    assert peer not in (0, os.getpid())
    with pytest.raises(ProtocolError, match=f"process {peer} says that it is TASK-1, process {os.getpid()}"):
        backplane.read_hello(proof, hello, peer)
    with pytest.raises(ProtocolError):
        backplane.read_hello(proof, hello, 0)


def test_what_a_worker_says_does_not_tell_the_token() -> None:
    backplane = Backplane("tcp://127.0.0.1:9001", b"t" * 32, None)
    _, proof, hello = backplane.hello("TASK-1", "", 0)
    assert backplane.token not in proof + hello
    assert backplane.read_hello(proof, hello, 0).pid == os.getpid()
    for false_proof, false_hello in (proof, hello + b"\0"), (backplane.token, hello), (b"", hello):
        with pytest.raises(ProtocolError):
            backplane.read_hello(false_proof, false_hello, 0)


def test_a_descriptor_that_is_no_unix_socket_is_nobodys(tmp_path: Path) -> None:
    assert peer_process(-1) == 0
    with (tmp_path / "file").open("w") as file:
        assert peer_process(file.fileno()) == 0
