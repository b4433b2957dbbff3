from __future__ import annotations

import pytest

from taskengine.broker.partials import Part, PartialResults
from taskengine.errors import ProtocolError


def test_neighbours_travel_together() -> None:
    results = PartialResults(10)
    for first, stop, failed, body in [(4, 6, 1, b"ef"), (0, 1, 0, b"a"), (9, 10, 1, b"j"), (6, 9, 2, b"ghi")]:
        results.failed += failed
        assert not results.put(first, stop, body)
    assert (results.held, results.missing, results.gaps()) == (7, 3, [(1, 4)])
    parts = results.take()
    assert parts == [Part(0, 1, 0, [b"a"]), Part(4, 10, 4, [b"ef", b"ghi", b"j"])]
    assert [part.size for part in parts] == [1, 6]
    assert (results.held, results.take()) == (0, [])
    assert results.put(1, 4, b"bcd")
    assert results.take() == [Part(1, 4, 0, [b"bcd"])]


def test_failures_are_of_what_is_sent() -> None:
    results = PartialResults(4)
    results.failed = 2
    results.put(0, 2, b"")
    results.take()
    results.failed = 3
    results.put(2, 4, b"")
    assert results.take() == [Part(2, 4, 1, [b""])]


def test_nothing_is_sent_twice() -> None:
    results = PartialResults(4)
    results.put(0, 2, b"ab")
    results.take()
    with pytest.raises(ProtocolError, match="twice"):
        results.put(1, 3, b"bc")
    assert (results.held, results.take()) == (0, [])
