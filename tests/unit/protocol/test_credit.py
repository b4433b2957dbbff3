"""Credit counts in totals, and a window grants in time: neither side ever waits for the other for good."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskengine.protocol.credit import MAX_BYTES, MAX_VALUES, Credit, Grant, Window


def test_the_last_value_may_be_larger_than_the_bytes_that_are_left() -> None:
    credit = Credit(Grant(3, 10))
    credit.send(1, 9)
    assert credit.may_send()
    credit.send(1, 1000)
    assert not credit.may_send()
    assert credit.extend(Grant(3, 1010))
    assert credit.may_send()
    credit.send(1, 0)
    assert not credit.may_send(), "three values were granted"


def test_a_grant_that_comes_twice_or_late_changes_nothing() -> None:
    credit = Credit(Grant(1, 10))
    assert credit.extend(Grant(5, 50))
    assert not credit.extend(Grant(5, 50))
    assert not credit.extend(Grant(2, 20))
    assert credit.grant == Grant(5, 50)


def test_what_a_reader_may_leave_unread_is_bounded() -> None:
    credit = Credit(Grant(1, 1))
    credit.send(7, 70)
    assert credit.is_within(Grant(7 + MAX_VALUES, 70 + MAX_BYTES))
    assert not credit.is_within(Grant(8 + MAX_VALUES, 70))
    assert not credit.is_within(Grant(8, 71 + MAX_BYTES))


@given(st.integers(1, 9), st.integers(1, 50), st.lists(st.integers(1, 60), max_size=60))
def test_a_reader_that_has_read_all_has_granted_the_next_value(values: int, size: int, sizes: list[int]) -> None:
    window = Window(Grant(values, size))
    credit = Credit(window.grant)
    for each in sizes:
        assert credit.may_send()
        credit.send(1, each)
        grant = window.read(1, each)
        if grant is not None:
            assert credit.is_within(grant)
            credit.extend(grant)


@given(st.integers(1, 9), st.lists(st.booleans(), max_size=80))
def test_a_task_is_never_further_ahead_than_the_window(values: int, sends: list[bool]) -> None:
    window, read = Window(Grant(values, 10**6)), 0
    credit = Credit(window.grant)
    for is_sent in sends:
        if is_sent and credit.may_send():
            credit.send(1, 1)
        elif read < credit.values:
            read += 1
            credit.extend(window.read(1, 1) or Grant(0, 0))
        assert credit.values - read <= values
