from __future__ import annotations

import pytest

from taskengine.broker.package import Package, check_names, decode_head, encode_head, lanes_of
from taskengine.errors import BadArguments, ProtocolError
from taskengine.protocol.limits import MAX_CHANGES, MAX_NAMES
from taskengine.protocol.messages import NOWHERE, Origin
from tests.packages import package


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
    made.sender.show_key("")
    assert (made.sender.owner, made.sender.key) == (b"client", "")
    made.sender.origin = Origin(client="tablet")
    made.sender.show_key("key")
    assert (made.sender.owner, made.sender.key) == (b"tablet", "key")


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
