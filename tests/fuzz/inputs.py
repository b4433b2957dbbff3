"""How an input of a target holds several frames: a separator survives mutation better than lengths do."""

from __future__ import annotations

from collections.abc import Iterable

SEPARATOR = b"\xc1|\xc1"
"""Between binary frames: 0xc1 begins no value of MessagePack."""
TEXT_SEPARATOR = b"\0"
"""Between frames of text: JSON and TOML have no zero byte."""


def joined(frames: Iterable[bytes], separator: bytes = SEPARATOR) -> bytes:
    """The input that holds these frames."""
    return separator.join(frames)


def number(data: bytes) -> int:
    """The first byte, 0 where there is none."""
    return data[0] if data else 0
