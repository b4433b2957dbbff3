"""Calls that stop the machine, and the one id that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine import _fastpath
from taskengine.client.calls import Call, identified, order_of, stops_machine, without_id

NAMES = st.sampled_from(["x", "system.stop", "legs.system.stop", "mysystem.stop", "system.stopped"])
ARGUMENTS = st.dictionaries(st.sampled_from(["why", "id"]), st.one_of(st.text(max_size=5), st.binary(max_size=5)))
CALLS = st.lists(st.tuples(NAMES, st.just(()) | st.just((b"own", "why")), ARGUMENTS))


def packed(calls: Sequence[Call]) -> tuple[list[str], bytes, bytes]:
    names: dict[str, int] = {}
    index, body = _fastpath.pack_calls(calls, names, True)
    return list(names), index, body


def unpacked(names: Sequence[str], index: bytes, body: bytes) -> list[tuple[str, list[Any], dict[str, Any]]]:
    tasks = _fastpath.unpack(body, len(index) // 4, bytes, True)
    assert memoryview(index).cast("I").tolist()[-1:] == ([len(body)] if tasks else [])
    return [(names[i], args, kwargs[0] if kwargs else {}) for i, args, *kwargs in tasks]


@pytest.mark.parametrize("name", ["system.stop", "legs.system.stop"])
def test_the_machine_is_stopped_by_the_task_of_each_lane(name: str) -> None:
    assert stops_machine(name)


@pytest.mark.parametrize("name", ["mysystem.stop", "system.stops", "motor.stop", "", b"system.stop", None])
def test_nothing_else_stops_it(name: object) -> None:
    assert not stops_machine(name)


def test_a_stop_has_an_id_of_its_own_unless_it_is_given_one() -> None:
    given: dict[str, Any] = {"id": 5}
    assert order_of(("system.stop", (), {"why": "smoke"}), b"new") == (b"new", "smoke")
    assert order_of(("system.stop", (b"own", "fire"), {}), b"new") == (b"own", "fire")
    assert order_of(("system.stop", (), {"id": b"own"}), b"new") == (b"own", "")
    assert order_of(("system.stop", (), given), b"new").id == b"new"


@given(CALLS)
def test_the_stops_of_a_package_share_an_id_and_all_else_stays(calls: list[Call]) -> None:
    names, index, body = packed(calls)
    frames, order = identified(names, index, body, b"new")
    after = unpacked(names, *frames)
    assert [(name, tuple(args)) for name, args, _ in after] == [(name, args) for name, args, _ in calls]
    for (name, args, kwargs), (_, _, kept) in zip(calls, after, strict=True):
        assert kept == ({"id": order.id, **kwargs} if stops_machine(name) and not args else kwargs)


def test_an_engine_of_version_0_1_0_gets_no_id() -> None:
    assert without_id(("system.stop", (), {"id": b"x", "why": "y"})) == ("system.stop", (), {"why": "y"})
    assert without_id(("x", (), {"id": b"x"})) == ("x", (), {"id": b"x"})
