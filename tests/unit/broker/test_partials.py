from __future__ import annotations

from taskengine.broker.partials import Part, Partials


def test_neighbours_travel_together() -> None:
    partials = Partials()
    for first, stop, failed, body in [(4, 6, 1, b"ef"), (0, 1, 1, b"a"), (9, 10, 2, b"j"), (6, 9, 4, b"ghi")]:
        partials.add(first, stop, failed, body)
    assert partials.held == 7
    parts = partials.take()
    assert parts == [Part(0, 1, 0, [b"a"]), Part(4, 10, 4, [b"ef", b"ghi", b"j"])]
    assert [part.size for part in parts] == [1, 6]
    assert (partials.held, partials.take()) == (0, [])


def test_failures_are_of_what_is_sent() -> None:
    partials = Partials()
    partials.add(0, 2, 2, b"")
    partials.take()
    partials.add(2, 4, 3, b"")
    assert partials.take() == [Part(2, 4, 1, [b""])]
