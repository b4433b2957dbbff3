"""The state machine of a board, without a board and without a clock."""

from __future__ import annotations

import contextlib

import pytest

from taskengine_hardware.board_errors import BoardError
from taskengine_hardware.board_machine import (
    CHECK_S,
    CUT_S,
    GATHER_S,
    LATE_S,
    RETRY_S,
    BoardAction,
    BoardMachine,
    Fallback,
    Setting,
    Step,
)

ON, OFF = Setting(0.075, 50.0), Setting()
BEGIN = 100.9


def take(machine: BoardMachine, now: float, step: Step) -> BoardAction:
    """Take the next step, which is this one."""
    action = machine.next(now)
    assert action is not None
    assert action.step is step
    return action


def fault_of(machine: BoardMachine) -> str:
    """Return why it takes no commands now."""
    return machine.fault


def is_enabled(machine: BoardMachine) -> bool:
    """Return whether its outputs are to be enabled now."""
    return machine.is_enabled


def do(machine: BoardMachine, now: float, *steps: Step) -> None:
    """Take these steps, which succeed at once."""
    for step in steps:
        machine.done(take(machine, now, step), now)


def refuses(machine: BoardMachine, now: float, text: str) -> None:
    """Check that a command is refused with this reason, and changes nothing."""
    wanted = machine._wanted.copy()
    with pytest.raises(BoardError, match=text):
        machine.put(0, Setting(0.9), now)
    assert machine._wanted[0].share != 0.9
    assert machine._wanted.keys() == wanted.keys()


@pytest.fixture
def machine() -> BoardMachine:
    """A board that runs, with a channel that goes off and one that holds."""
    made = BoardMachine("hat")
    made.fall_back("pan", Fallback({0: OFF}, holds=False))
    made.fall_back("grip", Fallback({1: OFF}, holds=True))
    for channel in (0, 1):
        made.put(channel, OFF, BEGIN)
    made.begin(BEGIN)
    do(made, BEGIN, Step.OPEN, Step.WRITE, Step.VERIFY)
    made.resume()
    return made


def test_nothing_is_taken_before_the_first_settings_were_read_back() -> None:
    machine = BoardMachine("hat")
    machine.put(0, OFF, BEGIN)
    machine.begin(BEGIN)
    do(machine, BEGIN, Step.OPEN, Step.WRITE)
    refuses(machine, BEGIN, "has not answered yet")
    machine.resume()
    assert not machine.is_running
    assert not is_enabled(machine)
    do(machine, BEGIN, Step.VERIFY)
    assert machine.is_ready
    assert is_enabled(machine)
    refuses(machine, BEGIN, "has not answered yet")
    machine.resume()
    assert (machine.is_running, machine.fault) == (True, "")
    assert machine.put(0, ON, BEGIN)


def test_changes_are_gathered_and_the_newest_counts(machine: BoardMachine) -> None:
    assert machine.put(0, ON, 101.0)
    assert machine.next(101.0) is None
    assert machine.due() == 101.0 + GATHER_S
    machine.put(1, ON, 101.0005)
    machine.put(0, OFF, 101.0006)
    machine.put(0, Setting(0.1, 50.0), 101.0007)
    assert not machine.put(0, Setting(0.1, 50.0), 101.0008)
    action = take(machine, 101.002, Step.WRITE)
    assert action.settings == {0: Setting(0.1, 50.0), 1: ON}
    # the thread is at work; what comes meanwhile follows
    machine.put(0, OFF, 101.003)
    assert machine.next(101.1) is None
    machine.done(action, 101.004)
    assert take(machine, 101.01, Step.WRITE).settings[0] == OFF


def test_a_ticket_is_confirmed_by_what_was_read_back_after_it(machine: BoardMachine) -> None:
    machine.put(0, ON, 101.0)
    do(machine, 101.01, Step.WRITE)
    machine.put(0, OFF, 101.02)
    ticket = machine.ask(101.02)
    do(machine, 101.03, Step.WRITE)
    assert machine.confirmed < ticket
    # more commands do not keep it from being read back
    machine.put(1, ON, 101.03)
    action = take(machine, 101.04, Step.VERIFY)
    later = machine.ask(101.041)
    machine.done(action, 101.05)
    assert machine.confirmed == ticket
    do(machine, 101.06, Step.WRITE, Step.VERIFY)
    assert machine.confirmed == later
    assert machine.is_settled


def test_a_fault_wants_the_safe_states_and_tries_for_ever(machine: BoardMachine) -> None:
    machine.put(0, ON, 101.0)
    machine.put(1, ON, 101.0)
    do(machine, 101.01, Step.WRITE)
    machine.put(0, Setting(0.1, 50.0), 101.02)
    machine.failed(take(machine, 101.03, Step.WRITE), "no chip answers", 101.04)
    assert fault_of(machine) == "board hat: no chip answers"
    assert not machine.is_running
    assert not is_enabled(machine)
    now = 101.04
    for _ in range(100):
        assert machine.due() == pytest.approx(now + RETRY_S)
        now = machine.due()
        refuses(machine, now, "board hat: no chip answers")
        machine.failed(take(machine, now, Step.OPEN), "no chip answers", now)
    do(machine, machine.due(), Step.OPEN)
    action = take(machine, now + 1, Step.WRITE)
    assert action.settings == {0: OFF, 1: ON}
    assert (machine.keeps("pan"), machine.keeps("grip")) == (False, True)
    machine.done(action, now + 1)
    assert not machine.is_ready
    do(machine, now + 1, Step.VERIFY)
    assert machine.is_ready


def test_what_holds_is_off_if_its_last_command_was_not_carried_out(machine: BoardMachine) -> None:
    machine.put(1, ON, 101.0)
    machine.failed(take(machine, 101.01, Step.WRITE), "no chip answers", 101.02)
    do(machine, 102.0, Step.OPEN)
    assert take(machine, 102.0, Step.WRITE).settings[1] == OFF
    assert not machine.keeps("grip")


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_step_that_hangs_is_given_up_and_its_outcome_means_nothing(machine: BoardMachine, ends_well: bool) -> None:
    machine.put(0, ON, 101.0)
    action = take(machine, 101.01, Step.WRITE)
    machine.look(101.0 + LATE_S / 2)
    assert not fault_of(machine)
    machine.look(101.0 + LATE_S)
    assert fault_of(machine) == "board hat: the bus hangs"
    assert machine.next(105.0) is None
    if ends_well:
        machine.done(action, 105.0)
    else:
        machine.failed(action, "no chip answers", 105.0)
    assert fault_of(machine) == "board hat: the bus hangs"
    # at once
    do(machine, 105.0, Step.OPEN)
    assert take(machine, 105.0, Step.WRITE).settings[0] == OFF


def test_a_command_that_waited_for_the_bus_too_long_is_not_carried_out(machine: BoardMachine) -> None:
    """The thread was with another board of the bus."""
    machine.put(0, ON, 101.0)
    assert machine.next(101.0 + LATE_S) is None
    assert fault_of(machine) == "board hat: the bus hangs"


def test_commands_find_a_bus_that_hangs(machine: BoardMachine) -> None:
    machine.put(0, ON, 101.0)
    take(machine, 101.01, Step.WRITE)
    refuses(machine, 101.0 + LATE_S, "the bus hangs")
    assert fault_of(machine) == "board hat: the bus hangs"


def test_the_line_cuts_what_is_not_confirmed_in_time(machine: BoardMachine) -> None:
    assert is_enabled(machine)
    machine.ask(100.95)
    assert machine.look_due() > 101.0 + CUT_S
    machine.ask(101.0, cuts=True)
    assert machine.look_due() == 101.0 + CUT_S
    machine.look(101.0 + CUT_S)
    assert not is_enabled(machine)
    assert not machine.fault
    do(machine, 101.0 + CUT_S, Step.VERIFY)
    assert is_enabled(machine)


def test_an_idle_board_and_one_that_is_commanded_all_the_time_are_looked_at(machine: BoardMachine) -> None:
    assert machine.due() == BEGIN + CHECK_S
    do(machine, BEGIN + CHECK_S, Step.CHECK)
    now, steps = BEGIN + CHECK_S, []
    for count in range(200):
        now += 0.005
        machine.put(0, Setting((count + 1) / 1000), now)
        now += GATHER_S
        action = machine.next(now)
        assert action is not None
        steps.append(action.step)
        machine.done(action, now)
    assert steps.count(Step.CHECK) == 2


def test_a_frozen_board_takes_nothing(machine: BoardMachine) -> None:
    machine.freeze()
    refuses(machine, 101.0, "board hat: it is being let go")


def test_asks_that_come_faster_than_they_are_read_back_are_confirmed_one_after_the_other(machine: BoardMachine) -> None:
    """The time of each ask is its own: frequent safe commands never switch a board off that is read back in time."""
    now, action, ticket, ends_at = 101.0, None, 0, 0.0
    for count in range(500):
        now += 0.001
        with contextlib.suppress(BoardError):
            machine.put(0, (OFF, ON)[count % 2], now)
        ticket = machine.ask(now, cuts=count % 5 == 0)
        machine.look(now)
        assert (machine.fault, is_enabled(machine)) == ("", True), f"after {count} ms"
        if action is None:
            action, ends_at = machine.next(now), now + 0.006
        elif now >= ends_at:
            machine.done(action, now)
            action = None
        assert ticket - machine.confirmed <= 30
    assert len(machine._asks) <= 30


def test_an_ask_is_read_back_although_its_settings_change_all_the_time(machine: BoardMachine) -> None:
    ticket = machine.ask(101.0, cuts=True)
    now = 101.0
    for count in range(4):
        now += 0.005
        machine.put(0, Setting((count + 1) / 100), now)
        machine.ask(now, cuts=True)
        action = machine.next(now)
        if action is not None:
            machine.done(action, now)
    assert machine.confirmed >= ticket


def test_what_was_cut_is_enabled_by_no_older_confirmation(machine: BoardMachine) -> None:
    machine.ask(101.0)
    action = take(machine, 101.0, Step.VERIFY)
    machine.put(0, ON, 101.001)
    ticket = machine.ask(101.001, cuts=True)
    machine.look(101.001 + CUT_S)
    assert not is_enabled(machine)
    machine.done(action, 101.1)
    assert machine.confirmed < ticket
    assert not is_enabled(machine)
    do(machine, 101.11, Step.WRITE, Step.VERIFY)
    assert (machine.confirmed, is_enabled(machine)) == (ticket, True)


def test_a_bus_that_hangs_while_an_idle_board_is_looked_at_is_found(machine: BoardMachine) -> None:
    action = take(machine, BEGIN + CHECK_S, Step.CHECK)
    due = machine.look_due()
    assert due <= BEGIN + CHECK_S + LATE_S
    machine.look(due)
    assert fault_of(machine) == "board hat: the bus hangs"
    machine.done(action, due + 1)
    do(machine, due + 1, Step.OPEN, Step.WRITE, Step.VERIFY)
    assert machine.is_ready


def test_the_owner_looks_in_time_at_an_idle_board_before_it_is_looked_at(machine: BoardMachine) -> None:
    """Nobody tells it that the bus hangs from then on."""
    assert machine.look_due() <= BEGIN + CHECK_S + LATE_S


def test_a_board_that_cannot_be_reached_keeps_one_ask() -> None:
    machine = BoardMachine("hat")
    machine.begin(BEGIN)
    opening = take(machine, BEGIN, Step.OPEN)
    tickets = [machine.ask(BEGIN + count / 100, cuts=True) for count in range(100)]
    assert len(machine._asks) == 1
    machine.done(opening, BEGIN + 1)
    do(machine, BEGIN + 1, Step.WRITE, Step.VERIFY)
    assert machine.confirmed == tickets[-1]
