from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskengine.broker.chunking import cut
from taskengine.broker.package import Package, Run, check_names, decode_head, encode_head, lanes_of
from taskengine.errors import BadArguments, Cancelled, ProtocolError
from taskengine.protocol.limits import MAX_CHANGES, MAX_NAMES
from taskengine.protocol.messages import NOWHERE, Origin
from tests.packages import package

runs = st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=8)


def test_neighbours_of_one_lane_are_one() -> None:
    assert lanes_of([("", 2), ("", 3), ("arm", 1), ("", 1)]) == [("", 5), ("arm", 1), ("", 1)]
    with pytest.raises(ProtocolError, match="from lane to lane"):
        lanes_of([(str(number % 2), 1) for number in range(MAX_CHANGES + 1)])


def test_the_names_of_a_package_are_not_too_many() -> None:
    check_names(MAX_NAMES)
    with pytest.raises(ProtocolError, match=f"at most {MAX_NAMES} tasks, not {MAX_NAMES + 1}"):
        check_names(MAX_NAMES + 1)


def test_a_head_says_what_its_slices_share() -> None:
    assert decode_head(encode_head("7", ["task_count"])) == ("7", ["task_count"], NOWHERE)
    assert decode_head(encode_head("7", b"{}"))[1] == b"{}"


def test_whose_limits_a_package_counts_against() -> None:
    made = package(1)
    made.belong("")
    assert (made.owner, made.key) == (b"client", "")
    made.origin = Origin(client="tablet")
    made.belong("key")
    assert (made.owner, made.key) == (b"tablet", "key")


def test_only_tasks_of_lanes_with_pins_are_to_be_small() -> None:
    class Checked(Package):
        seen: list[tuple[int, int, int]]

        def check_tasks(self, first: int, stop: int, most: int) -> None:
            self.seen.append((first, stop, most))
            if stop > 5:
                raise BadArguments("too large")

    made = Checked((b"client",), "serial", [], ("k",), bytes(4 * 6), b"")
    made.seen = []
    made.lanes = [("", 2), ("pins", 1), ("", 1), ("pins", 2)]
    made.check_small({}, 100)
    assert made.seen == []
    with pytest.raises(BadArguments):
        made.check_small({"pins"}, 100)
    assert made.seen == [(2, 3, 100), (4, 6, 100)]


def test_what_is_cancelled_is_news_once() -> None:
    made = package(3)
    assert made.cancel([0, 2])
    assert not made.cancel([0])
    assert (made.is_revoked(0, 1), made.is_revoked(1, 2), made.is_over()) == (True, False, False)
    assert made.cancel(None)
    assert not made.cancel(None)
    assert not made.cancel([1])
    assert isinstance(made.reason, Cancelled)
    assert made.is_over()
    assert made.is_revoked(1, 2)


@given(runs, st.sets(st.integers(0, 31)))
def test_who_leaves_takes_along_what_lanes_with_pins_have_not_answered(
    lanes: list[tuple[bool, int]], answered: set[int]
) -> None:
    """Against a model with one entry a task."""
    made, pinned, first = package(sum(tasks for _, tasks in lanes)), list[bool](), 0
    for has_pins, tasks in lanes:
        made.runs.append(Run("pins" if has_pins else "", first, first + tasks, 1, cut(tasks, None, 1)))
        pinned += [has_pins] * tasks
        first += tasks
    done = {position for position in answered if position < made.count}
    for position in done:
        made.put(position, position + 1, b"x")
    news = made.part({"pins"})
    if all(pinned):
        assert news
        assert isinstance(made.reason, Cancelled)
        return
    for position in set(range(made.count)) - done:
        assert made.is_revoked(position, position + 1) == pinned[position]
    assert news == any(pinned[position] for position in set(range(made.count)) - done)
