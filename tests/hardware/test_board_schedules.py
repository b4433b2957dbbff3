"""Random schedules of commands, stops, arms, lease ends and disturbances of a bus, judged each millisecond.

The real `Control` and `BoardMachine` run over the real `SharedState`; the bus, its thread and the chip are emulated. A
pin beside the board never waits for it.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskengine import NotAllowed, Origin, TaskFailed
from taskengine_hardware import SharedState, read
from taskengine_hardware.board_errors import BoardError
from taskengine_hardware.board_machine import CUT_S, LATE_S, RETRY_S, Fallback, Setting, Step
from taskengine_hardware.control import Control, checked, safe_value
from taskengine_hardware.device_config import LANE, Value
from taskengine_hardware.outputs import Output
from taskengine_hardware.sending import STOP
from taskengine_hardware.shared_state import NEVER
from tests.hardware.emulated_station import STEP_S, TAKES_S, EmulatedStation

LAPTOP = Origin("laptop", b"1", b"laptop")
LEASE_S = 0.25
TICK_S = 2 * STEP_S
SAFE_S = 0.05
"""How long after the end of a lease, or a stop, an output may be on."""
BACK_S = RETRY_S + 5 * TAKES_S + 5 * STEP_S
"""How long after a disturbance the board is safe, and known to be so."""
DEVICES: dict[str, dict[str, Any]] = {
    "pan": {"type": "Servo", "pin": "hat:0", "lease": LEASE_S},
    "grip": {"type": "Servo", "pin": "hat:1", "lease": LEASE_S, "safe": "hold"},
    "wheel": {"type": "Motor", "board": "hat", "forward": 2, "backward": 3, "lease": LEASE_S},
    "led": {"type": "LED", "pin": 17, "lease": LEASE_S},
}
CHANNELS = {"pan": (0,), "grip": (1,), "wheel": (2, 3)}
TURNED_OFF = ("pan", "wheel")


def shares(name: str, value: Value) -> tuple[float, ...]:
    """What the channels of a device are for a value."""
    if name == "wheel":
        assert isinstance(value, float)
        return max(value, 0.0), max(-value, 0.0)
    assert value is None or isinstance(value, float)
    return (0.0 if value is None else 0.075 + value / 40,)


class Site:
    """A lane whose former owner has died, with everything on."""

    def __init__(self) -> None:
        layout = read({"boards": {"hat": {"type": "PCA9685"}}, "devices": DEVICES})
        self.panel = SharedState(layout)
        for name, value in (("pan", 0.5), ("grip", 0.25), ("wheel", 1.0)):
            self.panel.note(layout.devices[name].place, value)
        self.panel.stop(1, by="guardian")
        chip = {0: 0.0875, 1: 0.08125, 2: 1.0, 3: 0.0}
        self.pending: set[int] = set()
        self.pin = False
        self.now = 100.0
        self.quiet_since = 100.0
        self.late_until = 0.0
        """Until when the owner's thread does not run."""
        self.stream: tuple[str, float] = "", 0.0
        """Commands that come each millisecond, until then."""
        self.count = 0
        self.held: set[float] = set()
        """What the device that holds may be: what it was when its board came, and what was taken since."""
        self.was_lost = True
        self.over = dict.fromkeys(TURNED_OFF, self.now)
        """Since when nobody may drive a device: its lease has ended, or the machine is stopped."""
        self.bad_until = self.now
        """Until when the board was lost, or its bus disturbed."""
        self.stood: float | None = None
        """What that channel was when a stop was confirmed."""
        fallbacks = {}
        for name, channels in CHANNELS.items():
            rest = map(Setting, shares(name, safe_value(layout.devices[name], None)))
            fallbacks[name] = Fallback(dict(zip(channels, rest, strict=True)), name == "grip")
        self.board = EmulatedStation(fallbacks, chip)
        self.control = Control(LANE, layout.of(LANE), self.panel, lambda output, now: True)
        self.control.pend, self.control.calm = self.pending.add, self.pending.discard
        at = {}
        for name, output in self.control.outputs.items():
            at[output.place] = safe_value(output.device, self.panel.last(output.place, output.role))
            output.write = self.writer(output)
            if name in CHANNELS:
                self.control.attach(output, [self.board])
                output.write(at[output.place])
        self.board.machine.begin(self.now)
        self.control.begin(at, self.now)

    def writer(self, output: Output) -> Any:
        name = output.device.name

        def write(value: Value) -> None:
            if name == "led":
                self.pin = bool(value)
                return
            refused: BoardError | None = None
            for channel, share in zip(CHANNELS[name], shares(name, value), strict=True):
                try:
                    self.board.put(channel, share)
                except BoardError as error:
                    refused = error
            if refused is not None:
                raise refused

        return write

    def do(self, deed: str, amount: int) -> None:
        """Have something happen; `amount` is in ms, or the value of a command."""
        until = self.now + amount / 1000
        if deed == "cut":
            self.board.cut_until = until
        elif deed == "hang":
            self.board.hangs_until = until
        elif deed == "deaf":
            self.board.deaf_until = until
            # a command that it ignored is found at the end of its lease, when the board is read back
            self.quiet_since = max(self.quiet_since, until + LEASE_S + SAFE_S)
        elif deed == "reset":
            self.board.reset()
            self.quiet_since = self.now + 0.5
        elif deed == "late":
            self.late_until = self.now + amount % 25 / 1000
        elif deed in STREAMS:
            self.stream = deed, until
        elif deed == "stop":
            self.control.stop(self.now)
            assert not self.pin
        else:
            self.call(deed, amount)

    def call(self, deed: str, amount: int) -> None:
        try:
            if deed == "arm":
                self.control.arm(LAPTOP, self.now)
                return
            output = self.control.find(deed)
            value = amount % 2 == 1 if deed == "led" else amount / 500
            self.control.command(output, checked(output, value), LAPTOP, self.now)
        except (NotAllowed, TaskFailed):
            return
        assert not output.failure
        if deed == "grip":
            self.held.add(round(shares("grip", value)[0], 9))

    def run(self, milliseconds: int) -> None:
        has_news = False
        for _ in range(milliseconds):
            self.now += STEP_S
            if not self.board.is_well(self.now):
                self.quiet_since = max(self.quiet_since, self.now)
            has_news = self.board.step(self.now) or has_news
            if self.now <= self.stream[1]:
                self.count += 1
                self.call("wheel", 0 if self.stream[0] == "zeros" else self.count % 2 * 100)
            if self.now >= self.late_until and (has_news or self.control.due <= self.now):
                self.control.tick(self.now)
                has_news = False
            self.judge()

    def judge(self) -> None:
        panel, now = self.panel, self.now
        led = self.control.find("led")
        end = panel.ends[led.place] / 1e9
        late_s = max(0.0, self.late_until - end)
        assert not self.pin or now <= end + late_s + TICK_S, "a pin waited for the board"
        self.judge_what_holds()
        for name in TURNED_OFF:
            output = self.control.find(name)
            is_on = any(self.board.chip[channel] for channel in CHANNELS[name])
            is_said_safe = panel.last(output.place, output.role) == output.rest
            assert not (is_on and is_said_safe), f"{name} is on, and other processes take it for safe"
            watched = panel.ends[output.place] != NEVER or output.place in self.pending
            assert watched or not is_on, f"{name} is on, and nobody would notice that its owner hangs"
            is_confirmed = panel.is_stopped and not panel.unconfirmed()
            assert not (is_on and is_confirmed), f"{name} is on, and the stop is confirmed"
            assert not (output.is_lost and self.board.is_enabled and is_on), "a lost board is enabled"
            self.judge_time(name, output, is_on=is_on)
        if now > max(self.quiet_since, self.late_until) + BACK_S + LATE_S:
            self.judge_quiet()

    def judge_time(self, name: str, output: Output, *, is_on: bool) -> None:
        """It is off 50 ms after its lease or a stop: by its line whatever the bus does, else by a bus that works."""
        now, is_well = self.now, self.board.is_well(self.now) and self.board.is_awake
        if not is_well or output.is_lost or self.board.machine.fault:
            self.bad_until = now
        end = self.panel.ends[output.place] / 1e9
        if not self.panel.is_stopped and now <= end:
            self.over[name] = now
        since = max(self.over[name], self.late_until)
        assert not (is_on and self.board.is_enabled) or now <= since + SAFE_S, f"{name} is on too long"
        if now > self.bad_until + SAFE_S + TICK_S:
            assert not is_on or now <= since + SAFE_S, f"{name} is on too long, on a bus that works"

    def judge_what_holds(self) -> None:
        """It never goes to a value that was commanded before its board was lost, nor while the machine is stopped."""
        output, found = self.control.find("grip"), round(self.board.chip[1], 9)
        if self.was_lost and not output.is_lost:
            value = round(shares("grip", output.value)[0], 9)
            assert found == value or not self.board.is_awake, "a board is back, and does something else than is told"
            self.held = {value}
        self.was_lost = output.is_lost
        if not output.is_lost:
            assert found in self.held | {0.0}, "it went to what was commanded before its board was lost"
        is_confirmed = self.panel.is_stopped and not self.panel.unconfirmed()
        if not is_confirmed:
            self.stood = None
        elif self.stood is None:
            self.stood = found
        else:
            assert found in (self.stood, 0.0), "it moved while the machine was stopped"

    def judge_quiet(self) -> None:
        """The bus has worked for long enough."""
        assert not any(output.is_lost for output in self.control.outputs.values())
        assert self.board.is_enabled, "the board is off, and its devices are told as live"
        for name in TURNED_OFF:
            output = self.control.find(name)
            over = self.panel.ends[output.place] == NEVER and output.place not in self.pending
            if over or (self.panel.is_stopped and not self.pending):
                assert not any(self.board.chip[channel] for channel in CHANNELS[name])

    def finish(self) -> None:
        """After every lease has ended on a bus that works, everything is safe, known to be so, and nobody beats."""
        left = max(self.board.cut_until, self.board.hangs_until, self.board.deaf_until) - self.now
        self.run(int(1000 * (max(left, 0.0) + LEASE_S + 0.5 + BACK_S + 2 * LATE_S)))
        assert not self.pending
        assert STOP not in self.pending
        assert [self.board.chip[channel] for channel in (0, 2, 3)] == [0.0] * 3
        assert self.panel.unconfirmed() == []
        assert not self.pin


STREAMS = ("zeros", "flicker")
DEEDS = [
    *("pan", "pan", "grip", "grip", "wheel", "wheel", "led", "cut", "hang", "deaf", "reset", "stop"),
    *("arm", "arm", "arm", "late", "late", *STREAMS),
]
SCHEDULES = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from(DEEDS), st.integers(1, 400)), min_size=1, max_size=30
)


@settings(max_examples=150, deadline=None)
@given(st.booleans(), SCHEDULES)
def test_whatever_happens_the_board_is_safe_as_soon_as_it_can_be(
    is_armed: bool, schedule: list[tuple[int, str, int]]
) -> None:
    site = armed() if is_armed else Site()
    try:
        for pause, deed, amount in schedule:
            site.run(pause)
            site.do(deed, amount)
        site.finish()
    finally:
        site.panel.close()


def armed(*deeds: tuple[str, int]) -> Site:
    """A machine that was armed, and then commanded."""
    site = Site()
    site.run(200)
    for deed, amount in (("arm", 0), *deeds):
        site.do(deed, amount)
        site.run(20)
    return site


@pytest.mark.parametrize("is_granted", [True, False])
def test_a_command_between_the_loss_of_a_bus_and_its_notice_is_refused_and_never_written(is_granted: bool) -> None:
    """Also of a device that holds, whose client does without checks, and whose lease has ended when the bus is back."""
    site = armed(("grip", 250), ("wheel", 400))
    grip, before = site.control.find("grip"), site.board.chip[1]
    assert grip.granted is LAPTOP
    site.do("cut", 150)
    # the owner's thread is busy; the bus's finds out
    site.late_until = site.now + 0.02
    site.call("wheel", 300)
    site.run(10)
    assert site.board.machine.fault
    assert not grip.is_lost
    if not is_granted:
        grip.granted = None
    with pytest.raises(TaskFailed, match="no chip answers"):
        site.control.command(grip, 1.0, LAPTOP, site.now)
    assert (grip.is_lost, site.panel.ends[grip.place], grip.value) == (True, NEVER, 0.5)
    assert site.panel.last(grip.place, grip.role) == 0.5, "the next owner would move it"
    site.run(600)
    assert not grip.is_lost
    assert (site.board.chip[1], grip.value) == (before, 0.5)
    # nothing moves until a new command, with a lease of its own
    assert site.board.chip[2] == 0.0
    site.do("grip", 400)
    site.run(20)
    assert site.board.chip[1] == pytest.approx(shares("grip", 0.8)[0])
    site.finish()


def test_a_stop_while_the_bus_is_lost_leaves_what_holds_where_it_is() -> None:
    site = armed(("grip", 250))
    before = site.board.chip[1]
    site.do("cut", 300)
    site.late_until = site.now + 0.02
    site.call("grip", 300)
    site.run(10)
    site.call("grip", 400)
    site.do("stop", 0)
    site.run(600)
    assert site.panel.unconfirmed() == []
    # its last command may have arrived or not, so it is off, or where it was
    assert site.board.chip[1] in (0.0, before)
    site.finish()


@pytest.mark.parametrize("stream", STREAMS)
def test_commands_that_come_faster_than_a_bus_is_read_back_do_not_switch_its_board_off(stream: str) -> None:
    site = armed(("pan", 300))
    site.do(stream, 3000)
    # the lease of pan ends meanwhile, which asks for a cut
    for _ in range(2000):
        site.run(1)
        assert site.board.is_enabled
    site.finish()


def test_a_safe_state_that_is_late_is_cut_by_the_line() -> None:
    site = Site()
    site.run(200)
    site.do("arm", 0)
    site.do("wheel", 400)
    site.run(20)
    assert (site.board.chip[2], site.board.is_enabled) == (0.8, True)
    site.do("hang", 5000)
    site.run(int(1000 * (LEASE_S + CUT_S)))
    assert (site.board.chip[2], site.board.is_enabled) == (0.8, False)
    site.finish()


@pytest.mark.parametrize("step", [Step.WRITE, Step.VERIFY, Step.CHECK])
@pytest.mark.parametrize("deed", ["stop", "lease"])
def test_a_stop_and_a_lease_overtake_what_the_bus_is_doing(step: Step, deed: str) -> None:
    """The thread of the bus may be anywhere in its steps, with a command that is written, and with one after it."""
    for delay in range(5):
        site = armed(("pan", 300))
        # what is read back is the end of pan's lease
        for tick in range(1500):
            if tick % (100 if step is Step.CHECK else 7) == 0:
                site.call("wheel", 100 + tick % 2 * 100)
            site.run(1)
            action = site.board._action
            if action is not None and action.step is step and site.board.chip[2]:
                break
        else:
            raise AssertionError(f"the bus is never at {step}")
        site.run(delay)
        if deed == "stop":
            site.call("wheel", 400)
            site.do("stop", 0)
            site.run(50)
            assert site.panel.unconfirmed() == []
        else:
            site.call("wheel", 400)
            site.run(int(1000 * LEASE_S) + 51)
        assert [site.board.chip[channel] for channel in (0, 2, 3)] == [0.0] * 3
        site.finish()


@pytest.mark.parametrize("disturbance", ["cut", "hang", "deaf", "reset"])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_lease_that_ends_in_the_instant_of_a_disturbance(disturbance: str, is_late: bool) -> None:
    """Before, in, and after each millisecond of it, with an owner that is late or not; `run` judges."""
    for offset in range(-12, 13):
        for length in (1, 30, 300):
            site = armed()
            site.call("wheel", 400)
            site.call("grip", 250)
            site.run(int(1000 * LEASE_S) + offset)
            site.do(disturbance, length)
            if is_late:
                site.late_until = site.now + 0.02
            site.run(400)
            site.finish()


@pytest.mark.parametrize("disturbance", ["cut", "hang", "deaf", "reset"])
def test_a_stop_in_the_instant_of_a_disturbance(disturbance: str) -> None:
    for offset in range(-8, 9):
        for length in (1, 30, 300):
            site = armed(("grip", 250))
            site.call("wheel", 400)
            site.run(20 + min(offset, 0))
            site.do(disturbance, length)
            site.run(abs(offset))
            site.do("stop", 0)
            site.run(400)
            site.finish()
