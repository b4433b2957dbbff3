"""The table of plays: which of them show an item, and what they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.hardware.safety.site import Site

Function = Callable[[Site], None]


class Play(NamedTuple):
    """Shows an item on a site whose engine has these settings; one that `is_last` leaves no engine to go on with."""

    item: int
    function: Function
    settings: tuple[tuple[str, Any], ...]
    is_last: bool

    @property
    def name(self) -> str:
        """As the tests show it."""
        return f"{self.item:02d}-{self.function.__name__}"


PLAYS: list[Play] = []


def plays(item: int, *, is_last: bool = False, **settings: Any) -> Callable[[Function], Function]:
    """Have a function show an item."""

    def note(function: Function) -> Function:
        PLAYS.append(Play(item, function, tuple(settings.items()), is_last))
        return function

    return note
