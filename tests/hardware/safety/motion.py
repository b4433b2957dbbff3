"""Items 1 to 6: motion needs a live, recent, consenting word, and keeps to its limits."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from functools import partial
from itertools import pairwise

import pytest

from taskengine import Cancelled, Client, NotAllowed, TaskEngineError, WorkerLost
from tests.engine import alive, deadline, free_ports, wait_until
from tests.hardware.safety.site import GRACE_S, LEASE_S, LEFT, PAN, WHEEL, Edge, Site, relay
from tests.hardware.safety.table import plays

SPEED, ACCELERATION = 120.0, 200.0
FRAME_S = 0.02
DRIVES = """
while True:
    client.send("robot.drive", "robot", 1.0, 1.0)
    client.flush()
    time.sleep(0.1)
"""
FORWARDS = """
threading.Thread(target=client.map, args=("motor.forward", ["wheel"] * 100_000), daemon=True).start()
time.sleep(60)
"""
QUEUES = """
client.call("motor.forward", "wheel")
print("drives", flush=True)
sys.stdin.readline()
"""


@plays(1)
def a_dead_links_commands_come_when_it_returns(site: Site) -> None:
    with relay(site) as line, site.program(DRIVES, address=line.address) as driver:
        site.await_level(LEFT, on=True, seconds=20)
        with site.client() as client:
            before = client.call("system.state")["lanes"]["hardware"]["refused"]
        frozen = line.freeze()
        wait_until(lambda: time.monotonic() > frozen + 2 * LEASE_S, 10, "commands that are held up")
        driver.kill()
        driver.wait()
        site.await_level(LEFT, on=False)
        wait_until(lambda: time.monotonic() > frozen + 4 * LEASE_S, 10, "an outage")
        thawed = line.thaw()
        with site.client() as client:
            assert line.passed.wait(deadline(10))
            # what has come through is with the router, and what the router has is done
            wait_until(lambda: client.call("system.state")["lanes"]["hardware"]["refused"] > before, 10, "refusals")
            site.settle(client)
    assert not site.turned_on(LEFT, thawed)


@plays(2)
def a_dead_clients_package_drives_no_longer_than_a_lease(site: Site) -> None:
    with site.program(FORWARDS) as program, site.client() as client:
        site.await_level(WHEEL, on=True, seconds=20)
        program.kill()
        program.wait()
        died = time.monotonic()
        fell = site.fell(WHEEL)
        site.settle(client)
    assert fell - died < LEASE_S + deadline(GRACE_S)
    assert not site.turned_on(WHEEL, died)


@plays(2)
def a_wheel_does_not_turn_again_after_its_drivers_death(site: Site) -> None:
    """Its commands wait behind another client's task."""
    text = QUEUES.replace("sys.stdin.readline()", "client.map('motor.forward', ['wheel'] * 50)")
    with site.client() as other, site.held(other, 1.5), site.program(text) as program:
        wait_until(lambda: other.stats().in_flight > 1, 20, "its command")
        died = time.monotonic()
        program.kill()
        program.wait()
    with site.client() as client:
        site.settle(client)
    assert not site.turned_on(WHEEL, died)


@plays(2)
def what_was_sent_while_no_engine_answered_is_not_run_on_its_return(site: Site) -> None:
    port = free_ports(2)
    with Client(f"tcp://127.0.0.1:{port}", timeout=deadline(30)) as client:
        client.send("motor.forward", "wheel")
        client.flush()
        sent = time.monotonic()
        # an engine may be there sooner than a command has become too old
        wait_until(lambda: time.monotonic() > sent + LEASE_S, 10, "the end of its lease")
        folder = site.folder / "later"
        folder.mkdir()
        later = Site(folder, router_frontend=port, router_backend=port + 1)
        try:
            wait_until(lambda: _knows(client), 20, "the client's connection")
            later.settle(client)
            assert not later.turned_on(WHEEL, 0.0)
        finally:
            later.close()


def _knows(client: Client) -> bool:
    try:
        client.options(timeout=deadline(1)).info()
    except TaskEngineError:
        return False
    return True


@plays(2, response_time=3)
def an_exception_flushes_nothing(site: Site) -> None:
    start, waiting = time.monotonic(), []
    with contextlib.suppress(ZeroDivisionError), site.client() as client:
        client.info()
        client.send("motor.forward", "wheel")
        waiting.append(client.submit("motor.forward", "wheel"))
        raise ZeroDivisionError
    assert waiting[0].cancelled() or isinstance(waiting[0].exception(), Cancelled)
    with site.client() as client:
        site.settle(client)
    assert not site.turned_on(WHEEL, start)


@plays(3)
def commands_from_before_a_stop_do_not_run_after_the_arm(site: Site) -> None:
    with relay(site) as line, site.client(line.address) as driver, site.client() as other:
        driver.call("motor.forward", "wheel")
        line.freeze()
        for _ in range(5):
            driver.send("motor.forward", "wheel")
        driver.flush()
        other.stop()
        other.arm()
        armed = time.monotonic()
        line.thaw()
        with contextlib.suppress(NotAllowed):
            driver.call("motor.forward", "wheel")
        site.settle(other)
    assert not site.turned_on(WHEEL, armed)


@plays(3)
def a_driver_that_never_heard_of_a_stop_does_not_move_things_after_it(site: Site) -> None:
    with site.client() as driver, site.client() as other:
        driver.call("motor.forward", "wheel")
        other.stop()
        other.arm()
        armed = time.monotonic()
        with pytest.raises(NotAllowed, match=r"lease\.acquire"):
            driver.call("motor.forward", "wheel")
        driver.send("motor.forward", "wheel")
        driver.flush()
        site.settle(driver)
        assert not site.turned_on(WHEEL, armed)
        other.call("motor.forward", "wheel")  # who armed may
        driver.lease("wheel")
        driver.call("motor.forward", "wheel", 0.5)
        with site.client() as later:
            later.call("motor.forward", "wheel")


@plays(3)
def an_older_arm_does_not_undo_a_newer_stop(site: Site) -> None:
    with relay(site) as line, site.client(line.address) as late, site.client() as other:
        other.stop()
        late.info()
        number = late.stop_in_force
        assert number > 0
        line.freeze()
        arming = [late.submit("system.arm"), late.submit("system.arm", stop=number)]
        late.flush()
        other.stop()
        line.thaw()
        for one in arming:
            assert isinstance(one.exception(deadline(20)), NotAllowed)
        with pytest.raises(NotAllowed, match="stop"):
            other.call("motor.forward", "wheel")
        assert not other.call("system.state")["armed"]


@plays(4)
def nothing_that_waited_for_a_dead_owner_moves_and_drives_are_stopped(site: Site) -> None:
    with site.client() as client, site.held(client, 1.0):
        waiting = [client.submit("motor.forward", "wheel") for _ in range(20)]
        client.flush()
        wait_until(lambda: client.stats().in_flight > 1, 20, "the commands")
        owner = site.owner
        os.kill(owner, signal.SIGKILL)
        died = time.monotonic()
        for one in waiting:
            assert isinstance(one.exception(deadline(20)), WorkerLost)
        wait_until(lambda: _state(client) is not None, 20, "another owner")
        state = client.call("system.state")
        assert not state["armed"]
        assert "guardian" in state["by"]
        assert "died" in state["why"]
        with pytest.raises(NotAllowed):
            client.call("motor.forward", "wheel")
    assert not site.turned_on(WHEEL, died)


def _state(client: Client) -> object:
    try:
        return client.call("system.state")
    except TaskEngineError:
        return None


@plays(5)
def an_ended_lease_is_not_skipped_where_another_client_acquires(site: Site) -> None:
    with site.client() as silent, site.client() as other:
        other.lease("wheel")
        silent.call("motor.forward", "wheel")
        called = time.monotonic()
        is_over = threading.Event()

        def ask() -> None:
            with contextlib.suppress(NotAllowed):
                while not is_over.is_set():
                    other.call("lease.acquire", ["wheel"])
                    other.call("lease.renew", ["wheel"])

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            fell = site.fell(WHEEL)
        finally:
            is_over.set()
            thread.join()
    assert fell - called < LEASE_S + deadline(GRACE_S)
    assert not site.turned_on(WHEEL, called)


@plays(5)
def a_renewal_after_a_lapse_fails_and_gives_nothing_back(site: Site) -> None:
    with site.client() as client:
        lease = client.lease("wheel")
        client.call("motor.forward", "wheel")
        fell = site.fell(WHEEL)
        with pytest.raises(NotAllowed, match="lapsed"):
            lease.renew()
        with site.client() as other, pytest.raises(NotAllowed):
            other.call("lease.renew", ["wheel"])
        site.settle(client)
    assert not site.turned_on(WHEEL, fell)


def _angles(edges: list[Edge]) -> list[Edge]:
    """Where an AngularServo was told to be: pulses of 1 to 2 ms, each 20 ms."""
    return [Edge(at, (value * 20 - 1.5) * 180) for at, value in edges if value]


@plays(6)
def limits_hold_where_one_motion_supersedes_another(site: Site) -> None:
    with site.client() as client:
        begin = time.monotonic()
        client.call("servo.move", "pan", angle=90, duration=0.1)
        for name, args in (
            ("servo.move", {"angle": -90, "duration": 0.1}),
            ("servo.set", {"angle": 90}),
            ("servo.halt", {}),
            ("servo.move", {"angle": -30, "duration": 0.1}),
        ):
            moved = time.monotonic()
            wait_until(partial(_is_well_on, site, moved), 5, "its motion")
            client.call(name, "pan", **args)
        wait_until(lambda: abs(_angles(site.edges(PAN))[-1].value + 30) < 0.1, 10, "its end")
        client.call("device.rest", "pan")
    angles = [edge for edge in _angles(site.edges(PAN)) if edge.at > begin]
    steps = [after.value - before.value for before, after in pairwise(angles)]
    # by its own clock each frame is 20 ms; one that was late makes the way of two
    assert max(map(abs, steps)) <= SPEED * 2 * FRAME_S + 0.01
    changes = [after - before for before, after in pairwise(steps)]
    even = [
        change for change, gaps in zip(changes, zip(angles, angles[2:], strict=False), strict=False) if _is_even(gaps)
    ]
    assert len(even) > 20
    assert max(map(abs, even)) <= ACCELERATION * FRAME_S * 2.5 * FRAME_S + 0.1


def _is_well_on(site: Site, since: float) -> bool:
    """It has gone on for some frames since then, or has come to its end."""
    return len(site.turned_on(PAN, since)) > 15 or time.monotonic() > since + 0.4


def _is_even(ends: tuple[Edge, Edge]) -> bool:
    """Two frames took about as long as two frames."""
    return abs(ends[1].at - ends[0].at - 2 * FRAME_S) < 0.1 * FRAME_S


@plays(6)
def an_owner_that_stood_still_makes_no_leap(site: Site) -> None:
    with site.client() as client:
        begin = time.monotonic()
        client.call("servo.move", "pan", angle=90, duration=1)
        wait_until(lambda: len(site.turned_on(PAN, begin)) > 10, 5, "the motion")
        owner = site.owner
        os.kill(owner, signal.SIGSTOP)
        stopped = time.monotonic()
        wait_until(lambda: time.monotonic() > stopped + 0.8, 10, "a pause")
        os.kill(owner, signal.SIGCONT)
        wait_until(lambda: len(site.turned_on(PAN, stopped)) > 5, 5, "the motion")
        assert alive(owner)
        client.call("device.rest", "pan")
    angles = [edge.value for edge in _angles(site.edges(PAN)) if edge.at > begin]
    assert max(abs(after - before) for before, after in pairwise(angles)) <= SPEED * 2 * FRAME_S + 0.01


@plays(6)
def a_servo_whose_position_nobody_knows_says_so(site: Site) -> None:
    with site.client() as client:
        state = client.call("devices.state")
    assert state["tilt"]["position"] == "unknown"
    assert state["pan"]["position"] == "assumed"
