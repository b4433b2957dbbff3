"""Who is let in while the allow-list cannot be read."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import zmq

from taskengine.gate import BACKEND, BLIND_S, FRONTEND, Gate, Security
from taskengine.keys import KeyRing, new_pair


def test_nobody_new_is_let_in_while_the_allow_list_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have been revoked meanwhile: the list was believed for as long as no descriptor was left."""
    security, client = Security.of(tmp_path), new_pair()
    KeyRing(tmp_path).allow("tablet", client.public)
    time, said = [0.0], list[str]()
    with zmq.Context() as context:
        gate = Gate(context, security, said.append, lambda event, **fields: None, lambda: time[0])
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
