"""Tasks go only to workers that have their module."""

from __future__ import annotations

import pytest

from taskengine.broker import Broker
from taskengine.messages import TaskInfo
from taskengine.package import Package
from taskengine.wire import MODULE_MARK
from tests.packages import answers, package

ARM = "" + MODULE_MARK + "arm"


def info(name: str, module: str, lane: str = "") -> TaskInfo:
    return TaskInfo(name, lane, "()", "", None, False, module)


GRIP, ADD = info("grip", "arm"), info("add", "sums")


def broker(workers: int = 2) -> Broker:
    made = Broker(1, {"": workers, "solo": 1})
    made.availability.learn([GRIP, ADD, info("alone", "arm", "solo")])
    return made


def calls(made: Broker, task: TaskInfo, count: int = 4) -> Package:
    """So many calls of the task, in flight."""
    sent = package(count, kind=task.name, lanes=[(made.availability.route(task), count)])
    assert not made.accept(sent)
    return sent


def run(made: Broker) -> dict[str, set[str]]:
    """Run all that is in flight; who ran which tasks, by their names."""
    ran: dict[str, set[str]] = {}
    made.settle(0.0)
    while batches := made.dispatch():
        for batch in batches:
            for slice in batch.slices:
                ran.setdefault(slice.package.kind[0], set()).add(batch.worker)
            made.finish(batch.worker, answers(batch))
        made.settle(0.0)
    return ran


def test_workers_that_have_all_share_one_lane() -> None:
    made = broker()
    made.join("a", "")
    made.join("b", "")
    assert (made.availability.route(GRIP), made.availability.route(ADD)) == ("", "")
    assert not made.availability.has_changed
    calls(made, GRIP)
    assert run(made) == {"grip": {"a", "b"}}


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_module_goes_to_the_workers_that_have_it(first: str) -> None:
    made = broker()
    for name in (first, "b" if first == "a" else "a"):
        made.join(name, "", ["arm"] if name == "b" else [])
    assert made.availability.has_changed
    assert (made.availability.route(GRIP), made.availability.route(ADD)) == (ARM, "")
    calls(made, GRIP)
    calls(made, ADD)
    assert run(made) == {"grip": {"a"}, "add": {"a", "b"}}


def test_where_none_has_it_all_say_why() -> None:
    made = broker()
    made.join("a", "", ["arm"])
    made.join("b", "", ["arm"])
    assert made.availability.route(GRIP) == ""
    calls(made, GRIP)
    assert run(made) == {"grip": {"a", "b"}}


def test_it_waits_for_a_worker_that_may_have_it() -> None:
    made = broker()
    made.join("a", "", ["arm"])
    assert made.availability.route(GRIP) == ARM
    calls(made, GRIP)
    calls(made, ADD)
    assert run(made) == {"add": {"a"}}
    made.join("b", "")
    assert run(made) == {"grip": {"b"}}


def test_what_waited_for_a_worker_that_has_it_not_either_is_answered() -> None:
    made = broker()
    made.join("a", "", ["arm"])
    calls(made, GRIP)
    made.join("b", "", ["arm"])
    assert run(made).keys() == {"grip"}
    assert made.idle()


def test_what_waits_in_the_lane_is_not_given_to_a_worker_that_comes_without_the_module() -> None:
    made = broker()
    made.join("a", "")
    calls(made, GRIP, 20)
    [batch] = made.dispatch()
    made.join("b", "", ["arm"])
    assert made.dispatch() == []
    assert made.availability.unsettled == {""}
    # others go on meanwhile, by parts
    assert made.availability.route(ADD) == "" + MODULE_MARK + "sums"
    calls(made, ADD)
    [other] = made.dispatch()
    assert (other.worker, other.slices[0].package.kind) == ("b", ("add",))
    made.finish("b", answers(other))
    made.finish(batch.worker, answers(batch))
    assert run(made)["grip"] == {"a"}
    made.settle(0.0)
    assert made.availability.unsettled == set()
    assert (made.availability.route(GRIP), made.availability.route(ADD)) == (ARM, "")


def test_a_death_moves_a_module_to_where_it_is_now() -> None:
    made = broker()
    made.join("a", "")
    made.join("b", "", ["arm"])
    calls(made, GRIP, 3)
    [batch] = made.dispatch()
    made.leave("a", [None])
    assert made.dispatch() == []
    made.join("c", "")
    assert run(made)["grip"] == {"c"}
    assert batch.worker == "a"
    made.leave("b", [])
    made.join("d", "")
    assert (made.availability.route(GRIP), made.availability.route(ADD)) == ("", "")
    calls(made, GRIP)
    assert run(made) == {"grip": {"c", "d"}}
    assert made.idle()


def test_what_waits_in_a_part_that_is_used_no_more_is_run() -> None:
    made = broker()
    made.join("a", "")
    made.join("b", "", ["arm"])
    calls(made, GRIP, 1)
    made.leave("a", [])
    made.leave("b", [])
    made.availability.learn([ADD])
    made.join("c", "")
    assert run(made) == {"grip": {"c"}}


def test_a_lane_of_one_worker_has_no_parts() -> None:
    made = broker()
    made.join("s", "solo", ["arm"])
    assert made.availability.route(info("alone", "arm", "solo")) == "solo"


def test_parts_are_counted_with_their_lane() -> None:
    made = broker()
    made.join("a", "")
    made.join("b", "", ["arm"])
    calls(made, GRIP, 3)
    lanes = {lane.name: lane for lane in made.stats({}).lanes}
    assert lanes.keys() == {"", "solo"}
    assert (lanes[""].workers, lanes[""].online, lanes[""].queued) == (2, 2, 3)
