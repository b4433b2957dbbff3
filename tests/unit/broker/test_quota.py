from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.quota import MAX_EXEMPT, MAX_EXEMPT_OF_ALL, NO_LIMITS, Quota, QuotaLimits
from taskengine.broker.tuning import PACKAGE_BYTES
from taskengine.errors import Overloaded

RETRY_S = 0.5
BYTES = 2**40


def soon() -> float:
    return RETRY_S


def refused(quota: Quota, client: bytes, tasks: int, size: int = 0) -> Overloaded:
    before = (quota.tasks, quota.bytes)
    with pytest.raises(Overloaded) as caught:
        quota.take(client, tasks, size, soon)
    assert (quota.tasks, quota.bytes) == before, "it was taken in part"
    return caught.value


def test_a_client_has_at_most_its_limit() -> None:
    quota = Quota(QuotaLimits(100, BYTES, 1000, BYTES))
    quota.take(b"a", 60, 0, soon)
    error = refused(quota, b"a", 41)
    assert (error.retry_after, error.in_flight, error.limit) == (RETRY_S, 60, 100)
    assert "CLIENT_TASKS" in str(error)
    quota.take(b"a", 40, 0, soon)
    quota.take(b"b", 100, 0, soon)


def test_what_never_fits_is_told_so() -> None:
    quota = Quota(QuotaLimits(100, 8 * PACKAGE_BYTES, 1000, BYTES))
    assert refused(quota, b"a", 101).retry_after is None
    error = refused(quota, b"a", 1, 8 * PACKAGE_BYTES + 1)
    assert error.retry_after is None
    assert "CLIENT_BYTES" in str(error)


def test_what_is_more_than_all_may_have_is_told_so() -> None:
    error = refused(Quota(QuotaLimits(1000, BYTES, 100, BYTES)), b"a", 101)
    assert (error.retry_after, error.limit) == (None, 100)
    assert "QUEUE_TASKS" in str(error)


def test_whoever_takes_all_it_can_leaves_half_to_the_next() -> None:
    quota = Quota(QuotaLimits(1000, BYTES, 1000, BYTES))
    for client, share in ((b"a", 500), (b"b", 250), (b"c", 125)):
        for _ in range(share):
            quota.take(client, 1, 0, soon)
        error = refused(quota, client, 1)
        assert error.retry_after == RETRY_S
        assert "QUEUE_TASKS" in str(error)


def test_results_take_room_too() -> None:
    quota = Quota(QuotaLimits(1000, BYTES, 1000, 4 * PACKAGE_BYTES))
    quota.take(b"a", 1, PACKAGE_BYTES, soon)
    assert quota.holds(2 * PACKAGE_BYTES)
    assert not quota.holds(PACKAGE_BYTES + 1)
    refused(quota, b"b", 1, 2 * PACKAGE_BYTES)
    quota.give_back(b"a", 1, PACKAGE_BYTES, 2 * PACKAGE_BYTES)
    assert (quota.tasks, quota.bytes, quota.results) == (0, 0, 0)
    quota.take(b"b", 1, 2 * PACKAGE_BYTES, soon)


def test_no_limits_are_none() -> None:
    Quota(NO_LIMITS).take(b"a", 2**40, 2**40, soon)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 40), st.integers(PACKAGE_BYTES, 3 * PACKAGE_BYTES)
        ),
        max_size=60,
    )
)
def test_what_is_given_back_is_free(offers: list[tuple[bytes, int, int]]) -> None:
    limits = QuotaLimits(60, 6 * PACKAGE_BYTES, 100, 12 * PACKAGE_BYTES)
    quota = Quota(limits)
    taken: list[tuple[bytes, int, int]] = []
    for client, tasks, size in offers:
        try:
            quota.take(client, tasks, size, soon)
        except Overloaded:
            if len(taken) > 3:
                quota.give_back(*taken.pop(0), 0)
        else:
            taken.append((client, tasks, size))
        assert quota.tasks == sum(tasks for _, tasks, _ in taken) <= limits.queue_tasks
        assert quota.bytes == sum(size for *_, size in taken) <= limits.queue_bytes
        for name in (b"a", b"b", b"c"):
            assert sum(tasks for client, tasks, _ in taken if client == name) <= limits.client_tasks
    for package in taken:
        quota.give_back(*package, 0)
    assert (quota.tasks, quota.bytes, quota.results) == (0, 0, 0)


def test_what_stops_something_is_let_in_although_it_is_full_but_not_without_end() -> None:
    quota = Quota(QuotaLimits(10, BYTES, 10, BYTES))
    quota.take(b"a", 10, 0, soon)
    for _ in range(MAX_EXEMPT):
        quota.take(b"a", 1, 0, soon, is_exempt=True)
    with pytest.raises(Overloaded):
        quota.take(b"a", 1, 0, soon, is_exempt=True)
    quota.take(b"b", 1, 0, soon, is_exempt=True)
    quota.give_back(b"a", 1, 0, 0, is_exempt=True)
    quota.take(b"a", 1, 0, soon, is_exempt=True)
    refused(quota, b"c", 1)


def test_not_even_of_many_clients() -> None:
    quota = Quota(QuotaLimits(10, BYTES, 0, BYTES))
    for number in range(MAX_EXEMPT_OF_ALL):
        quota.take(b"%d" % number, 1, 0, soon, is_exempt=True)
    with pytest.raises(Overloaded):
        quota.take(b"one more", 1, 0, soon, is_exempt=True)
