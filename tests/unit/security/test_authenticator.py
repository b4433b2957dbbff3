from __future__ import annotations

import errno
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import zmq

from taskengine._socket import Port, Waiter
from taskengine.errors import ProtocolError
from taskengine.protocol.limits import HANDSHAKE_BURST, HANDSHAKE_RATE
from taskengine.runtime.procfs import peer_process
from taskengine.runtime.topology import Topology
from taskengine.security import keys
from taskengine.security.authenticator import BLIND_S, REST, KeyAuthenticator
from taskengine.security.credentials import BACKEND, FRONTEND, Credentials, present
from taskengine.security.keys import KeyRing, new_pair
from tests.engine import deadline, no_descriptors


def _say(address: str, frames: list[bytes]) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(address)
        dealer.send_multipart(frames)
        dealer.recv()  # while it is looked who has said that


def said(address: str, frames: list[bytes], process: int | None) -> tuple[list[bytes], int]:
    """A message from another process, or from ours, as a router receives it, and the process by its socket."""
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
    backplane = Topology(f"ipc://{tmp_path}/backend", b"t" * 32, None)
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
    backplane = Topology("tcp://127.0.0.1:9001", b"t" * 32, None)
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


def test_a_worker_is_known_with_no_descriptor_left() -> None:
    """It was dropped as a stranger where clients had used up the router's descriptors."""
    one, other = socket.socketpair()
    with one, other:
        with no_descriptors():
            assert peer_process(one.fileno()) == os.getpid()
        assert one.send(b"x") == 1, "it is still open"


def test_nobody_new_is_let_in_while_the_allow_list_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have been revoked meanwhile: the list was believed for as long as no descriptor was left."""
    security, client = Credentials.of(tmp_path), new_pair()
    KeyRing(tmp_path).allow("tablet", client.public)
    time, said = [0.0], list[str]()
    with zmq.Context() as context:
        gate = KeyAuthenticator(context, security, said.append, lambda event, **fields: None, lambda: time[0])
        assert gate.lets_in(FRONTEND, client.public)
        with monkeypatch.context() as patched:

            def blind(ring: KeyRing) -> object:
                raise OSError(errno.EMFILE, "Too many open files")

            patched.setattr(KeyRing, "stamp", blind)
            assert gate.lets_in(FRONTEND, client.public), "for a moment that says nothing about keys"
            time[0] += BLIND_S
            assert not gate.lets_in(FRONTEND, client.public)
            assert gate.lets_in(BACKEND, security.inner.public), "the engine's own are in no file"
            assert gate.name_of(client.public) == "tablet", "who is here stays"
        assert gate.lets_in(FRONTEND, client.public)
        gate.stop()
    assert len(said) == 1


def test_a_key_is_revoked_with_no_descriptor_left(tmp_path: Path) -> None:
    """The list is a folder, which cannot be read then; it was believed as it was."""
    security, tablet, phone = Credentials.of(tmp_path), new_pair(), new_pair()
    ring, said = KeyRing(tmp_path), list[str]()
    for name, pair in (("tablet", tablet), ("phone", phone)):
        ring.allow(name, pair.public)
    with zmq.Context() as context:
        gate = KeyAuthenticator(context, security, said.append, lambda event, **fields: None)
        gate.refresh()
        with no_descriptors():
            with pytest.raises(OSError, match="Too many open files"):
                os.open(tmp_path, os.O_RDONLY)
            ring.revoke("tablet")
            change = gate.refresh()
            assert (change.added, change.gone) == ({}, {tablet.public: "tablet"})
            assert gate.refresh().gone == {}
            assert gate.name_of(tablet.public) is None
            assert gate.name_of(phone.public) == "phone"
            assert not gate.lets_in(FRONTEND, tablet.public)
        assert gate.refresh().gone == {}
        assert gate.lets_in(FRONTEND, phone.public)
        ring.allow("tablet", tablet.public)
        assert gate.refresh().added == {tablet.public: "tablet"}
        gate.stop()


def test_an_allow_list_that_has_not_changed_is_read_with_no_descriptor_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where many connect at once there is none for moments, in which the list counted as unreadable."""
    security, tablet, phone = Credentials.of(tmp_path), new_pair(), new_pair()
    ring, said = KeyRing(tmp_path), list[str]()
    ring.allow("tablet", tablet.public)
    monkeypatch.setattr(keys, "SETTLED_S", 0.0)
    # the clock of a file system has ticks of some ms, in which several files may come
    state = [0]
    monkeypatch.setattr(keys, "_state_of", lambda folder: tuple(state))
    time = [0.0]
    with zmq.Context() as context:
        gate = KeyAuthenticator(context, security, said.append, lambda event, **fields: None, lambda: time[0])
        with no_descriptors():
            for _ in range(3):
                time[0] += BLIND_S
                assert gate.lets_in(FRONTEND, tablet.public)
        assert said == []
        ring.allow("phone", phone.public)
        state[0] += 1
        assert gate.lets_in(FRONTEND, phone.public), "the folder has changed"
        ring.revoke("tablet")
        state[0] += 1
        assert gate.refresh().gone == {tablet.public: "tablet"}
        gate.stop()


def test_known_clients_that_connect_again_and_again_have_the_list_read_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading looks at the file of every client: 50 clients took a third of the router's time with it."""
    security, tablet, phone = Credentials.of(tmp_path), new_pair(), new_pair()
    ring, time, readings = KeyRing(tmp_path), [0.0], list[float]()
    ring.allow("tablet", tablet.public)
    read = KeyRing.stamp

    def slow(ring: KeyRing) -> object:
        readings.append(time[0])
        time[0] += 0.001
        return read(ring)

    with zmq.Context() as context:
        gate = KeyAuthenticator(context, security, print, lambda event, **fields: None, lambda: time[0])
        monkeypatch.setattr(KeyRing, "stamp", slow)
        while time[0] < 1.0:
            assert gate.lets_in(FRONTEND, tablet.public)
            time[0] += 0.0001
        assert 80 <= len(readings) <= 100, "a tenth of the time"
        assert not gate.lets_in(FRONTEND, phone.public)
        ring.allow("phone", phone.public)
        assert gate.lets_in(FRONTEND, phone.public), "at once, although the list was just read"
        ring.revoke("tablet")
        time[0] += REST * 0.001
        assert not gate.lets_in(FRONTEND, tablet.public)
        gate.stop()


def test_a_key_connects_only_so_often(tmp_path: Path) -> None:
    """Each connection takes libzmq's own thread, through which all that others send goes, a handshake."""
    security, client = Credentials.of(tmp_path), new_pair()
    ring, time = KeyRing(tmp_path), [100.0]
    ring.allow("tablet", client.public)
    noted: list[tuple[str, object]] = []
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        gate = KeyAuthenticator(
            context, security, print, lambda event, **fields: noted.append((event, fields)), lambda: time[0]
        )
        security.serve(router, FRONTEND)
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def is_let_in() -> bool:
            with context.socket(zmq.DEALER) as dealer:
                dealer.linger = 0
                dealer.reconnect_ivl = -1
                present(dealer, ring.engine().public, client)
                dealer.connect(f"tcp://127.0.0.1:{port}")
                dealer.send(b"x")
                assert Waiter(gate.port).wait(int(deadline(20) * 1000))
                gate.handle()
                return bool(router.poll(int(deadline(0.3) * 1000))) and bool(router.recv_multipart())

        assert is_let_in()
        for _ in range(HANDSHAKE_BURST - 1):
            gate._handshakes.knock(client.public, time[0])
        assert not is_let_in()
        assert not is_let_in()
        assert [event for event, _ in noted] == ["refused"]
        time[0] += 2 / HANDSHAKE_RATE
        assert is_let_in()
        assert not gate._is_hasty(BACKEND, zmq.utils.z85.decode(security.inner.public))
        gate.stop()
