"""The assembler: pieces in any order, doubled, overlapping or senseless, as the model takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskengine import _fastpath
from tests import model
from tests.fuzz.inputs import number
from tests.twins import outcome

MAX_BYTES = 25
TOKENS = [bytes([first, stop]) for first, stop in ((0, 1), (1, 2), (0, 8), (255, 3), (7, 8))]
MOST_TASKS = 32


def seeds() -> list[bytes]:
    """In order, backwards, with a gap, twice, over each other, and beyond the end."""
    orders = ["01 12 23 34", "34 23 12 01", "02 24", "01 23", "01 01", "02 13", "04", "05", "10", "00 04", "24 01 12"]
    return [bytes([4]) + bytes(int(digit) for digit in order.replace(" ", "")) for order in orders] + [
        b"",
        b"\0",
        b"\x20\x00\x20",
    ]


def fuzz(data: bytes) -> None:
    """Tasks in the package, then (first, stop) of each piece; what is at 248 or more is below 0."""
    tasks = number(data) % (MOST_TASKS + 2) - 1
    places = [place if place < 248 else place - 256 for place in data[1:MAX_BYTES]]
    arrivals = list(zip(places[::2], places[1::2], strict=False))

    def history(kind: Callable[[int], Any]) -> list[object]:
        assembly = kind(tasks)
        told: list[object] = []
        for turn, (first, stop) in enumerate(arrivals):
            told += [outcome(assembly.put, first, stop, bytes([turn] * (turn % 4))), assembly.missing, assembly.held]
            told += [assembly.gaps(), assembly.lacks(first), assembly.lacks(stop)]
        return [*told, outcome(assembly.pieces), outcome(assembly.bodies), outcome(assembly.join)]

    assert outcome(history, _fastpath.Assembly) == outcome(history, model.Assembly)
