"""Any garbage in gives our ProtocolError and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskengine import _fastpath
from taskengine.broker import binary, legacy_json
from taskengine.client.samples import SubscriptionFilter
from taskengine.client.session import Session
from taskengine.errors import ProtocolError
from taskengine.protocol.layouts import MAGIC
from taskengine.protocol.messages import NOWHERE, Request, RequestKind, decode_reply, decode_request, encode_request
from tests.batches import join_frames

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
META_KEYS = st.sampled_from(
    ["id", "role", "version", "type", "pack", "length", "serial", "part", "size", "task", "args"]
)
SEED_FRAME = st.binary(max_size=60) | st.dictionaries(META_KEYS, JSON, max_size=6).map(
    lambda held: json.dumps(held).encode()
)
FRAMES = st.lists(st.binary(max_size=60), max_size=4)


def only_protocol_errors(read: Callable[[], object]) -> None:
    with contextlib.suppress(ProtocolError):
        read()


@given(frames=st.lists(SEED_FRAME, min_size=1, max_size=5))
@example(frames=[b'{"serial": NaN}'])
@example(frames=[b'{"pack": 1e999}', b'{"task": "x", "pack": 1e999}'])
def test_wire_0_1(frames: list[bytes]) -> None:
    try:
        package = legacy_json.read_package((), frames[0], *join_frames(frames[1:]), {}, 1, NOWHERE)
    except ProtocolError as error:
        answer = legacy_json.malformed(frames[0], error)
    else:
        package.cut(10, {"": 2})
        answer = package.refusal(ProtocolError("x"))
        assert not package.count or list(package.pieces_of(ProtocolError("x"), 0, package.count))
    assert len(answer) == 1


@given(head=st.binary(max_size=60), frames=FRAMES)
def test_wire_0_2_heads(head: bytes, frames: list[bytes]) -> None:
    only_protocol_errors(lambda: decode_request(MAGIC + head))
    only_protocol_errors(lambda: decode_reply(MAGIC + head))
    only_protocol_errors(lambda: Session("x", "tcp://127.0.0.1:9000").receive([MAGIC + head, *frames]))


@given(
    names=st.lists(st.text(max_size=3), max_size=3),
    kind=st.sampled_from([RequestKind.PACKAGE, RequestKind.PUBLISH, RequestKind.LATEST]),
    frames=FRAMES | st.integers(1, 3).map(lambda n: [*_fastpath.pack_map([range(n)])]),
    deadline=st.floats(),
)
def test_wire_0_2_packages(names: list[str], kind: RequestKind, frames: list[bytes], deadline: float) -> None:
    request = Request(kind, 1, "x", names, deadline=deadline)
    head = encode_request(request)

    def accept() -> None:
        package = binary.read_package((), request, [head, *frames], {"a": "b"}, 1, NOWHERE)
        package.cut(2, {"": 2})
        for run in package.flight.chunks.runs:
            _fastpath.read_batch(_fastpath.pack_batch(1, 0, [package.section(run, run.first, run.stop)]))

    only_protocol_errors(accept)


@given(frames=FRAMES)
def test_publications(frames: list[bytes]) -> None:
    only_protocol_errors(lambda: SubscriptionFilter("*").take(frames))


@given(data=st.binary(max_size=120))
def test_what_routers_and_workers_exchange(data: bytes) -> None:
    only_protocol_errors(lambda: _fastpath.read_answer(data))
    only_protocol_errors(lambda: _fastpath.read_batch(data))
    only_protocol_errors(
        lambda: _fastpath.run_batch(data, lambda head: [], lambda *entry: b"", lambda *chunk: (b"", 0))
    )


@pytest.mark.parametrize("frames", [[], [b""]])
def test_nothing_at_all_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        Session("x", "tcp://127.0.0.1:9000").receive(frames)
