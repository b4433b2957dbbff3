"""Values wait for their reader, in order, none twice; the end comes behind them."""

from __future__ import annotations

import threading

import pytest

from taskengine.client.values import ValueBuffer
from taskengine.errors import ProtocolError
from taskengine.protocol.credit import Grant
from tests.engine import deadline


def test_what_has_come_before_is_passed_over() -> None:
    """A message that was taken by a leader which a signal interrupted is taken again."""
    values = ValueBuffer(Grant(8, 100))
    values.put(0, ["a", "b"], 2)
    values.put(0, ["a", "b"], 2)
    values.put(1, ["b", "c"], 2)
    assert [values.pop()[0] for _ in range(3)] == ["a", "b", "c"]
    assert values.is_empty
    with pytest.raises(ProtocolError, match="value 4 of a stream has come, and value 3 has not"):
        values.put(4, ["e"], 1)


def test_bytes_count_as_read_with_the_last_value_of_their_message() -> None:
    values = ValueBuffer(Grant(100, 10))
    values.put(0, ["a", "b"], 10)
    assert values.pop() == ("a", None)
    assert values.pop() == ("b", Grant(102, 20))


def test_a_closed_buffer_keeps_nothing() -> None:
    values = ValueBuffer(Grant(8, 100))
    values.put(0, ["a"], 1)
    values.clear()
    values.put(1, ["b"], 1)
    assert values.is_empty


def test_a_reader_waits_for_a_value_or_the_end() -> None:
    values, told = ValueBuffer(Grant(8, 100)), []
    values.notify(lambda: told.append(len(told)))
    assert not values.wait(0.0)
    reader = threading.Thread(target=values.wait, args=(deadline(20),))
    reader.start()
    values.put(0, ["a"], 1)
    reader.join(deadline(20))
    assert not reader.is_alive()
    values.pop()
    values.end.set_result(None)
    assert values.wait(None)
    assert told == [0, 1]
