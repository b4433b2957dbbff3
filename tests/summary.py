"""Prints the tests' results on admission and rights as tables at the end of pytest's output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

DOOR = "door"
"""The name of a test's property that is (plain or CURVE, socket, key, whether something got through)."""
RIGHTS = "rights"
"""That of a sentence about a policy."""
SIEGE = "siege"
"""That of (attack, figures before, figures after), each with the same fields: a NamedTuple."""

Property = tuple[str, object]


def lines(properties: Iterable[Property]) -> Iterator[str]:
    """The tables, out of the properties of all tests."""
    found = list(properties)
    doors = {door[:3]: door[3] for name, door in found if name == DOOR and isinstance(door, tuple)}
    if doors:
        sockets = list(dict.fromkeys((mode, socket) for mode, socket, _ in doors))
        yield f"{'what got through':<18}" + "".join(f"{f'{mode}, {socket}':>18}" for mode, socket in sockets)
        for key in dict.fromkeys(key for *_, key in doors):
            cells = (doors.get((mode, socket, key)) for mode, socket in sockets)
            yield f"{key:<18}" + "".join(f"{'?' if cell is None else 'yes' if cell else '-':>18}" for cell in cells)
    yield from (str(text) for name, text in found if name == RIGHTS)


def siege(properties: Iterable[Property]) -> Iterator[str]:
    """The table of attacks: each figure before and after."""
    rows = [row for name, row in properties if name == SIEGE and isinstance(row, tuple)]
    for _, before, _ in rows[:1]:
        yield f"{'attack':<22}" + "".join(f"{field.replace('_', ' '):>16}" for field in before._fields)
    for attack, before, after in rows:
        cells = (f"{was:g} > {now:g}" for was, now in zip(before, after, strict=True))
        yield f"{attack:<22}" + "".join(f"{cell:>16}" for cell in cells)
