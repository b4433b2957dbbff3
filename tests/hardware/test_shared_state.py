from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from taskengine_hardware import SharedState, read
from taskengine_hardware.consents import CONSENTS
from taskengine_hardware.device_config import LANE, LATCH, RESUME
from taskengine_hardware.device_types import Role
from taskengine_hardware.priority import hurry
from taskengine_hardware.shared_state import IDS, NEVER, NOBODY, TEXT_BYTES, LaneState, StopRecord
from tests.engine import deadline

DEVICES: dict[str, Any] = {
    "pan": {"type": "Servo", "pin": 2},
    "lamp": {"type": "LED", "pin": 3},
    "glow": {"type": "RGBLED", "red": 4, "green": 5, "blue": 6},
    "leg": {"type": "Servo", "pin": 7, "lane": "legs"},
}


@pytest.fixture
def panel() -> SharedState:
    return SharedState(read({"devices": DEVICES}))


@pytest.mark.parametrize(
    ("place", "role", "value"),
    [
        (0, Role.SERVO, -0.5),
        (0, Role.SERVO, None),
        (1, Role.SWITCH, True),
        (1, Role.SWITCH, False),
        (2, Role.COLOUR, (0.5, 0.25, 1.0)),
        (3, Role.SERVO, 1.0),
    ],
)
def test_what_was_told_is_remembered(panel: SharedState, place: int, role: Role, value: Any) -> None:
    assert panel.last(place, role) is None
    panel.note(place, value)
    assert panel.last(place, role) == value
    assert type(panel.last(place, role)) is type(value)


def _is_stopped(panel: SharedState) -> bool:
    """Ask anew; mypy takes a property to stay as it was."""
    return panel.is_stopped


def test_a_stop_latches_until_its_number_is_armed(panel: SharedState) -> None:
    assert not _is_stopped(panel)
    assert panel.unconfirmed() == []
    assert panel.stop(5) == 1
    assert _is_stopped(panel)
    assert panel.unconfirmed() == [LANE, "legs"]
    panel.confirm("legs", panel.number)
    assert panel.unconfirmed() == [LANE]
    assert panel.arm(1, b"anna", 6)
    assert not _is_stopped(panel)
    assert panel.armed_at == 6
    assert panel.stop(7) == 2
    assert _is_stopped(panel)


def test_a_stop_of_a_stopped_machine_has_a_number_of_its_own(panel: SharedState) -> None:
    assert [panel.stop(5), panel.stop(6)] == [1, 2]
    assert panel.stopped_at == 6
    assert not panel.arm(1, b"anna", 7)
    assert panel.is_stopped
    assert panel.arm(2, b"anna", 7)


def test_an_arm_of_another_number_undoes_nothing(panel: SharedState) -> None:
    panel.stop(5)
    for number in (0, 2, -1):
        assert not panel.arm(number, b"anna", 6)
    assert panel.is_stopped
    assert not panel.has_armed(b"anna")


def test_it_is_known_who_armed_last(panel: SharedState) -> None:
    assert not panel.has_armed(b"")
    panel.arm(panel.stop(5), b"anna", 6)
    assert panel.has_armed(b"anna")
    assert not panel.has_armed(b"otto")
    panel.arm(panel.stop(7), b"otto", 8)
    assert not panel.has_armed(b"anna")


def test_consents_are_of_a_lane_and_an_arm(panel: SharedState) -> None:
    panel.consents.give(LANE, b"anna", panel.armed)
    assert not panel.consents.has(LANE, b"anna", panel.armed)  # nothing was armed
    panel.stop(5)
    panel.arm(1, b"boss", 6)
    assert not panel.consents.has(LANE, b"anna", panel.armed)
    panel.consents.give(LANE, b"anna", panel.armed)
    assert panel.consents.has(LANE, b"anna", panel.armed)
    assert not panel.consents.has("legs", b"anna", panel.armed)
    assert not panel.consents.has(LANE, b"bert", panel.armed)
    for number in range(CONSENTS - 1):
        panel.consents.give(LANE, str(number).encode(), panel.armed)
    assert panel.consents.has(LANE, b"anna", panel.armed)
    panel.consents.give(LANE, b"bert", panel.armed)
    assert panel.consents.has(LANE, b"bert", panel.armed)
    assert not panel.consents.has(LANE, b"anna", panel.armed)
    assert not panel.consents.has("legs", b"bert", panel.armed)
    panel.stop(7)
    panel.arm(2, b"boss", 8)
    assert not panel.consents.has(LANE, b"bert", panel.armed)


def test_to_arm_what_is_armed_changes_nothing(panel: SharedState) -> None:
    panel.arm(panel.stop(5), b"anna", 6)
    assert panel.arm(1, b"otto", 9)
    assert panel.armed_at == 6
    assert panel.has_armed(b"anna")


def test_a_stop_that_is_repeated_is_not_another_one(panel: SharedState) -> None:
    assert panel.stop(5, by="anna", id=b"one") == 1
    assert panel.stop(6, by="otto", id=b"one") == 1
    assert panel.arm(1, b"anna", 7)
    assert panel.stop(8, id=b"one") == 1
    assert not panel.is_stopped
    assert panel.knows(b"one")
    assert not panel.knows(b"two")
    assert panel.stop(9, id=b"two") == 2
    assert panel.is_stopped


def test_ids_are_forgotten_after_many_others(panel: SharedState) -> None:
    for number in range(IDS + 1):
        panel.stop(5, id=number.to_bytes(16))
    assert not panel.knows(bytes(16))
    assert all(panel.knows(number.to_bytes(16)) for number in range(1, IDS + 1))


def test_it_is_said_who_stopped_and_why(panel: SharedState) -> None:
    assert panel.latest() == StopRecord(0, 0, "", "", False)
    panel.stop(5, by="änna", why="smoke")
    assert panel.latest() == StopRecord(1, 5, "änna", "smoke", True)
    panel.stop(6, by="o" * 9999, why="ü" * 9999)
    assert panel.latest().by == "o" * TEXT_BYTES
    assert panel.latest().why == "ü" * (TEXT_BYTES // 2)


def test_a_text_is_cut_between_letters(panel: SharedState) -> None:
    panel.stop(5, why="a" + "ü" * TEXT_BYTES)
    assert panel.latest().why == "a" + "ü" * (TEXT_BYTES // 2 - 1)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may keep a process from going on for a while."""
    monkeypatch.setattr("taskengine_hardware.shared_state.PATIENCE_S", deadline(5))


@pytest.mark.usefixtures("patience")
def test_stops_of_several_processes_are_all_counted(panel: SharedState) -> None:
    def work() -> list[int]:
        return [panel.stop(5) for _ in range(200)]

    numbers = [number for some in _ask_many(work, 4) for number in some]
    assert sorted(numbers) == list(range(1, 801))
    assert panel.number == 800


@pytest.mark.usefixtures("patience")
def test_one_stop_by_several_ways_is_one(panel: SharedState) -> None:
    def work() -> list[int]:
        return [panel.stop(5, id=b"%d" % number) for number in range(IDS)]

    first, *others = _ask_many(work, 3)
    assert all(numbers == first for numbers in others)
    assert sorted(first) == list(range(1, IDS + 1))


def test_a_hasty_process_lets_a_slow_one_finish_the_same_stop(
    panel: SharedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guardian, in real time, must not take the processor from a router that is about to note the stop's id."""
    # not as long as the kernel lets real time have a processor for itself
    monkeypatch.setattr("taskengine_hardware.shared_state.PATIENCE_S", 0.4)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    one = {min(os.sched_getaffinity(0))}

    def be_slow() -> None:
        os.sched_setaffinity(0, one)
        with panel._counting():
            theirs.send(True)
            theirs.recv()
            end = time.thread_time() + 0.001
            while time.thread_time() < end:
                pass
            panel._count_stop(5, b"one")

    def be_hasty() -> int:
        os.sched_setaffinity(0, one)
        hurry()
        ours.send(True)
        return panel.stop(5, id=b"one")

    process = context.Process(target=be_slow)
    process.start()
    assert ours.recv()
    assert _ask(be_hasty) == 1
    process.join()
    assert panel.number == 1


def test_nobody_waits_for_a_process_that_stands_still(panel: SharedState) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def stand_still() -> None:
        with panel._counting():
            theirs.send(True)
            theirs.recv()

    process = context.Process(target=stand_still)
    process.start()
    assert ours.recv()
    assert panel.stop(5) == 1
    assert panel.is_stopped
    ours.send(True)
    process.join()


def test_a_device_is_rested_by_the_newest_call(panel: SharedState) -> None:
    assert panel.rested(1) == (0, 0)
    for order, position in ((7, 3), (7, 2), (5, 9)):
        panel.rest(LANE, 1, order, position)
        assert panel.rested(1) == (7, 3)
    panel.rest(LANE, 1, 8, 0)
    assert panel.rested(1) == (8, 0)
    assert panel.rested(0) == (0, 0)
    assert os.eventfd_read(panel.bell(LANE)) == 4


def test_a_lane_says_how_it_is(panel: SharedState) -> None:
    panel.begin(LANE, 17)
    panel.begin(LANE, 19)
    panel.refuse("legs")
    assert panel.state(LANE) == LaneState(19, 2, 1, 0)  # the first has not let go
    assert panel.state("legs") == LaneState(NOBODY, 0, 0, 1)
    panel.beat("legs", 5)
    assert (panel.beaten("legs"), panel.beaten(LANE)) == (5, NEVER)


LATCHING: dict[str, Any] = {
    "wheel": {"type": "Motor", "forward": 2, "backward": 3},
    "leg": {"type": "Servo", "pin": 7, "lane": "legs"},
}


@pytest.fixture
def latching() -> SharedState:
    layout = read({"devices": LATCHING})
    wheel = msgspec.structs.replace(layout.devices["wheel"], on_fault=LATCH)
    leg = msgspec.structs.replace(layout.devices["leg"], on_fault=RESUME)
    return SharedState(msgspec.structs.replace(layout, devices={"wheel": wheel, "leg": leg}))


def test_an_owner_that_dies_with_a_drive_stops_the_machine(latching: SharedState) -> None:
    latching.begin(LANE, 17)
    assert latching.note_exit(LANE, 17, 5, "hung")
    assert latching.latest() == StopRecord(1, 5, "guardian", "the owner of lane hardware hung", True)
    assert latching.state(LANE).faults == 1
    assert not latching.note_exit(LANE, 17, 6, "died")
    latching.arm(1, b"", 7)
    latching.begin(LANE, 19)
    assert not latching.is_stopped


def test_the_next_owner_stops_it_where_the_guardian_has_not_yet(latching: SharedState) -> None:
    latching.begin(LANE, 17)
    latching.begin(LANE, 19)
    assert latching.latest().why == "the owner of lane hardware died"
    assert not latching.note_exit(LANE, 17, 6, "died")
    assert latching.number == 1


def test_other_deaths_only_count(latching: SharedState) -> None:
    assert not latching.note_exit(LANE, 17, 5, "died")  # it had no pins yet
    latching.begin("legs", 23)
    assert latching.note_exit("legs", 23, 5, "died")
    assert latching.state("legs").faults == 1
    assert not latching.is_stopped


def test_an_owner_that_has_let_go_may_die(latching: SharedState) -> None:
    latching.take(LANE)
    latching.begin(LANE, os.getpid())
    latching.give(LANE)
    assert not latching.note_exit(LANE, os.getpid(), 5, "died")
    latching.begin(LANE, os.getpid())
    assert latching.note_exit(LANE, os.getpid(), 6, "died")
    latching.begin(LANE, 19)
    latching.give(LANE)  # the guardian's own, not the owner's
    assert latching.note_exit(LANE, 19, 7, "died")


def test_the_machine_says_how_it_is(panel: SharedState) -> None:
    quiet = {"owner": NOBODY, "generation": 0, "faults": 0, "refused": 0}
    assert panel.report() == {
        "armed": True, "stop": 0, "by": "", "why": "", "since": 0.0, "rules": {}, "reasons": [],
        "lanes": {LANE: quiet, "legs": quiet},
    }  # fmt: skip
    panel.begin("legs", 17)
    panel.stop(5 * 10**9, by="anna", why="smoke")
    report = panel.report()
    assert (report["armed"], report["stop"], report["by"], report["why"]) == (False, 1, "anna", "smoke")
    assert report["since"] == 5
    assert report["lanes"]["legs"] == {**quiet, "owner": 17, "generation": 1}
    panel.arm(1, b"", 7 * 10**9)
    assert (panel.report()["armed"], panel.report()["since"]) == (True, 7)


def test_it_is_known_when_an_output_was_told_and_by_whom(panel: SharedState) -> None:
    assert panel.told(1) == (0, False)
    panel.note(1, True, 5)
    assert panel.told(1) == (5, False)
    panel.note(1, False, -6)
    assert panel.told(1) == (6, True)


def test_the_guardian_hears_of_what_changes(panel: SharedState) -> None:
    panel.stop(5)
    panel.arm(1, b"", 6)
    panel.begin(LANE, 17)
    assert os.eventfd_read(panel.news) == 3


def test_the_owner_is_known(panel: SharedState) -> None:
    assert panel.owner(LANE) == NOBODY
    panel.begin(LANE, 17)
    panel.begin("legs", 19)
    assert (panel.owner(LANE), panel.owner("legs")) == (17, 19)


def test_owners_are_rung_for(panel: SharedState) -> None:
    panel.stop(5)
    for lane in (LANE, "legs"):
        assert os.eventfd_read(panel.bell(lane)) == 1
    panel.stop(6)
    assert os.eventfd_read(panel.bell(LANE)) == 1
    panel.arm(2, b"", 7)
    assert os.eventfd_read(panel.bell("legs")) == 2


def _ask(work: Callable[[], Any]) -> Any:
    """The answer of a process that is forked, and dies then."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(work()))
    process.start()
    answer = ours.recv()
    process.join()
    return answer


def _ask_many(work: Callable[[], Any], count: int) -> list[Any]:
    """The answers of processes that do it at the same time."""
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=lambda end=theirs: end.send(work())) for _, theirs in pipes]
    for process in processes:
        process.start()
    answers = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    return answers


def test_a_lock_is_one_processs_and_goes_with_it(panel: SharedState) -> None:
    assert _ask(lambda: panel.take(LANE)) is True
    assert panel.take(LANE)  # that one is dead
    assert _ask(lambda: panel.take(LANE)) is False
    assert _ask(lambda: panel.take("legs")) is True
    panel.give(LANE)
    assert _ask(lambda: panel.take(LANE)) is True


def test_memory_is_shared(panel: SharedState) -> None:
    def work() -> bool:
        panel.want("legs", 17)
        panel.ends[1] = 2**62 + 1
        panel.note(0, 0.25)
        panel.stop(5)
        return True

    _ask(work)
    assert panel.wanted_by("legs") == 17
    assert panel.wanted_by(LANE) == NOBODY
    assert panel.ends[1] == 2**62 + 1
    assert panel.last(0, Role.SERVO) == 0.25
    assert panel.is_stopped
