from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.in_flight import InFlight
from taskengine.broker.quota import NO_LIMITS
from taskengine.broker.withdrawals import Withdrawals
from taskengine.errors import Cancelled
from tests.packages import package

runs = st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=8)


@given(runs, st.sets(st.integers(0, 31)))
def test_who_leaves_takes_along_what_lanes_with_pins_have_not_answered(
    lanes: list[tuple[bool, int]], answered: set[int]
) -> None:
    """Against a model with one entry a task."""
    in_flight = InFlight(NO_LIMITS)
    withdrawals = Withdrawals(in_flight, {"pins"})
    made = package(
        sum(tasks for _, tasks in lanes), lanes=[("pins" if has_pins else "", tasks) for has_pins, tasks in lanes]
    )
    made.cut(None, {})
    pinned = [has_pins for has_pins, tasks in lanes for _ in range(tasks)]
    done = {position for position in answered if position < made.count}
    for position in done:
        made.results.put(position, position + 1, b"x")
    in_flight.add(made, float)
    withdrawals.client_left(b"client")
    news = withdrawals.take() == {made}
    if all(pinned):
        assert news
        assert isinstance(made.flight.cancellation.reason, Cancelled)
        return
    for position in set(range(made.count)) - done:
        assert bool(list(made.flight.cancellation.runs(position, position + 1))) == pinned[position]
    assert news == any(pinned[position] for position in set(range(made.count)) - done)
