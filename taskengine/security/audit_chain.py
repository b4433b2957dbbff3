"""A chain of sealed lines: the last field of a line is a SHA-256 of the seal before it and of the rest of the line.

Pure.

{"time":…,"event":…,"chain":"9f86…"}

The first line of a file has a field `after`: the seal of the line before it, "" if there was none. A user who can write
the file can seal it again from any line on. The chain shows missing or changed lines to a reader who has kept a later
seal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

_SEAL = re.compile(rb',"chain":"([0-9a-f]{64})"\}\Z')
SEAL_BYTES = len(b',"chain":""') + 64
"""Bytes that the seal adds to a line."""


def sealed(line: bytes, before: str) -> bytes:
    """Return a line of JSON, an object, with the seal that follows the seal `before`."""
    digest = hashlib.sha256(before.encode() + line).hexdigest()
    return line[:-1] + f',"chain":"{digest}"}}'.encode()


def seal_of(line: bytes) -> str | None:
    """Return the seal of a line; None if it has none."""
    found = _SEAL.search(line)
    return found[1].decode() if found else None


class Finding(NamedTuple):
    """The result of a check: how many lines are sealed, the last seal, and what is wrong, with the line from 1."""

    sealed: int
    last: str
    wrong: list[tuple[int, str]]
    begun: str = ""
    """The seal that the first sealed line names in `after`."""
    unsealed: int = 0
    """How many lines before the first sealed one have no seal."""


def verify(lines: Iterable[bytes]) -> Finding:
    """Check all lines of a file, without their newlines. Lines without a seal may stand only before the first."""
    count, unsealed, last, begun = 0, 0, "", ""
    wrong: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        seal = seal_of(line)
        if seal is None:
            if count:
                wrong.append((number, "the line has no seal"))
            unsealed += not count
            continue
        body = _SEAL.sub(b"}", line)
        if not count:
            begun = last = _after(body)
        if sealed(body, last) != line:
            wrong.append((number, "the line, or one before it, is not what was written"))
        count, last = count + 1, seal
    return Finding(count, last, wrong, begun, unsealed)


def _after(line: bytes) -> str:
    try:
        after = msgspec.json.decode(line).get("after", "")
    except (msgspec.DecodeError, AttributeError):
        return ""
    return after if isinstance(after, str) else ""
