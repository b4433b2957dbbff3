"""The router's cost of reading a package grows with its bytes, and little, whatever is in it."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker import binary, legacy_json
from taskengine.broker.package import Package
from taskengine.broker.tuning import NAME_BYTES
from taskengine.config.policy import Entry, Policy, Rights, matches
from taskengine.errors import ProtocolError
from taskengine.protocol.limits import MAX_NAMES
from taskengine.protocol.messages import NOWHERE, Request, RequestKind
from taskengine.router.permissions import ClientTable

ROUTE = (b"\0aaaa",)
LANES = {"stop": "arm", "rest": "arm", "other": ""}
TASKS = 2**17
PACKED = (b"\x92\x00\x90", b"\x92\x01\x90") * (TASKS // 2)
SEED = (b'{"task":"stop"}', b'{"task":"rest"}') * (TASKS // 2)


@lru_cache
def laid(tasks: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """INDEX and BODY."""
    return struct.pack(f"<{len(tasks)}I", *itertools.accumulate(map(len, tasks))), b"".join(tasks)


def packed_package(names: list[str], tasks: tuple[bytes, ...], lanes: dict[str, str]) -> Package:
    request = Request(RequestKind.PACKAGE, 1, "x", names)
    return binary.read_package(ROUTE, request, [b"", *laid(tasks)], lanes, 1, NOWHERE)


def seed_package(tasks: tuple[bytes, ...], lanes: dict[str, str]) -> Package:
    return legacy_json.read_package(ROUTE, b'{"type": "REQ"}', *laid(tasks), lanes, 1, NOWHERE)


ALTERNATING = {
    "0.2": lambda lanes: packed_package(["stop", "rest", "other"], PACKED, lanes),
    "0.1": lambda lanes: seed_package(SEED, lanes),
}


@pytest.mark.parametrize("wire", ALTERNATING)
def test_names_that_alternate_take_no_memory(wire: str) -> None:
    """For each of two million tasks the router once made a list entry, in seconds that an emergency stop waited."""
    read: Callable[[dict[str, str]], Package] = ALTERNATING[wire]
    read(LANES)
    tracemalloc.start()
    package = read(LANES)
    list(package.calls({"stop"}, 16))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert package.lanes == [("arm", TASKS)]
    assert peak < 2**20, f"{peak / 2**20:.1f} MiB"


@pytest.mark.parametrize("wire", ALTERNATING)
def test_the_policy_is_asked_once_for_a_name(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    may_call = Rights.may_call

    def counted(rights: Rights, task: str, lane: str) -> bool:
        asked.append(task)
        return may_call(rights, task, lane)

    visitors = ClientTable(Policy({"x": Entry()}))
    visitors.learn({"known": ""})
    lanes = visitors.of("x").lanes
    monkeypatch.setattr(Rights, "may_call", counted)
    with pytest.raises(ProtocolError, match="change from lane to lane"):
        ALTERNATING[wire](lanes)
    assert len(asked) <= 5, "the three names, and the one that a task without any has"


def test_a_package_names_only_so_many_tasks() -> None:
    names = [f"{number:x}" for number in range(MAX_NAMES + 1)]
    assert packed_package(names[:-1], (), {}).names_held == MAX_NAMES
    frames = tuple(b'{"task":"%b"}' % name.encode() for name in names)
    lanes = dict.fromkeys(names, "")
    assert seed_package(frames[:-1], lanes).names_held == MAX_NAMES
    with pytest.raises(ProtocolError, match=f"at most {MAX_NAMES} tasks"):
        packed_package(names, (), lanes)
    with pytest.raises(ProtocolError, match=f"at most {MAX_NAMES} tasks"):
        seed_package(frames, lanes)


def test_what_a_package_is_said_to_hold_is_what_its_names_take() -> None:
    """2.3 GB were held where 134 MB were counted."""
    names = [f"{number:x}" for number in range(MAX_NAMES)]
    package = packed_package(names, (b"\x92\x00\x90",), {})
    assert package.size > MAX_NAMES * NAME_BYTES
    assert len(packed_package(["stop"] * MAX_NAMES, (b"\x92\x00\x90",), LANES).kind) == 1


def test_the_router_does_not_decode_what_a_client_of_wire_01_publishes() -> None:
    """The router took many times a value's memory while it read it, and everybody waited."""
    frame = b'{"data": {"topic": "t", "value": [%b[]]}}' % (b"[]," * 300_000)
    tracemalloc.start()
    package = legacy_json.read_package(ROUTE, b'{"type": "PUB"}', *laid((frame,)), {}, 1, NOWHERE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert package.data_request is not None
    assert package.data_request.topic == "t"
    assert peak < 6 * len(frame), f"{peak / 2**20:.1f} MiB"


@pytest.mark.parametrize("topic", [b"", b"1", b'["x"]', b'"\\ud800"', b'"\\q"', b'"\xff"', b"null"])
def test_a_topic_is_text(topic: bytes) -> None:
    frame = b'{"data": {"topic": %b, "value": 1}}' % topic
    with pytest.raises(ProtocolError):
        legacy_json.read_package(ROUTE, b'{"type": "PUB"}', *laid((frame,)), {}, 1, NOWHERE)


@given(st.text("abA.*?[]!-", max_size=6), st.lists(st.text("abA.*?[]!-", max_size=5), max_size=4))
def test_patterns_match_together_as_one_by_one(name: str, patterns: list[str]) -> None:
    assert matches(name, tuple(patterns)) == any(fnmatchcase(name, pattern) for pattern in patterns)
