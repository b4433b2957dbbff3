"""Which known name a mistyped one may have meant. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Return the known names that `name` may have meant, the likeliest first, without regard to case.

    Names that are not alike are left out: a suggestion that is far off misleads.
    """
    spellings: dict[str, list[str]] = {}
    for one in known:
        spellings.setdefault(one.lower(), []).append(one)
    matches = difflib.get_close_matches(name.lower(), spellings, n=count)
    return [one for match in matches for one in spellings[match]][:count]
