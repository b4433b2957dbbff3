"""Lines of which each seals those before it: the last field of a line is a SHA-256 of the one before and of the rest.

    {"time":…,"event":…,"chain":"9f86…"}

The first line of a file says in its field `after` what the line before it was sealed with: "" where there was none. Who
can write the file can also seal it anew, from any line on: a chain shows that lines are missing or were changed to
whoever has kept a later seal. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

_SEAL = re.compile(rb',"chain":"([0-9a-f]{64})"\}\Z')
SEAL_BYTES = len(b',"chain":""') + 64
"""What the seal adds to a line."""


def sealed(line: bytes, before: str) -> bytes:
    """A line of JSON, an object, with the seal that follows the seal `before`."""
    digest = hashlib.sha256(before.encode() + line).hexdigest()
    return line[:-1] + f',"chain":"{digest}"}}'.encode()


def seal_of(line: bytes) -> str | None:
    """The seal that a line has; None for a line without."""
    found = _SEAL.search(line)
    return found[1].decode() if found else None


class Finding(NamedTuple):
    """What was found in the lines: how many are sealed, the last seal, and what is wrong, with the line from 1."""

    sealed: int
    last: str
    wrong: list[tuple[int, str]]
    begun: str = ""
    """What the first sealed line says that it came after."""
    unsealed: int = 0
    """Lines before the first that is sealed."""


def verify(lines: Iterable[bytes]) -> Finding:
    """Look at all lines of a file, without their newlines. Lines without a seal may stand only before the first."""
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
