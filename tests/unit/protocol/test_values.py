"""Python's other values as extensions of MessagePack: what is written, and what is no such value."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from taskengine.errors import ProtocolError
from taskengine.protocol.layouts import ValueExt
from taskengine.protocol.values import PLAIN, decoded, lowered


class Point(msgspec.Struct, array_like=True):
    x: int
    y: int


class Tagged(msgspec.Struct, array_like=True, tag="point"):
    x: int


@pytest.mark.parametrize(
    ("code", "data", "why"),
    [
        (ValueExt.INT, b"", "at least one byte"),
        (ValueExt.UUID, bytes(15), "16 bytes, not 15"),
        (ValueExt.DATETIME, b"2026-01-01T00:00:00+00:00", "extension -1"),
        (ValueExt.TIMEDELTA, bytes(4) + (86_400).to_bytes(4, "big") + bytes(4), "below 86400"),
        (ValueExt.TIMEDELTA, bytes(8) + (10**6).to_bytes(4, "big"), "below 1000000"),
    ],
)
def test_what_is_no_value_of_its_extension_is_refused(code: int, data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decoded(code, data)


@pytest.mark.parametrize(("value", "written"), [(Point(1, 2), [1, 2]), (Tagged(3), ["point", 3])])
def test_a_struct_that_is_like_an_array_is_a_list_with_its_tag(value: msgspec.Struct, written: list[Any]) -> None:
    assert lowered(value) == (PLAIN, written)
    assert msgspec.to_builtins(value) == written
