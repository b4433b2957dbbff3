"""Items 7 to 13: stops that stop, by the shortest way, whoever else uses the machine and whatever has died."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
import zmq

from bench import stops
from taskengine import Cancelled, Client, NotAllowed, TaskEngineError, WorkerLost
from taskengine.client.calls import Call
from taskengine.runtime.rundir import stop_path
from tests.engine import alive, deadline, wait_until
from tests.hardware.safety.site import AT_ONCE_S, DRILL, EXCLUSIVE_S, HEATER, WHEEL, Site, signal_all
from tests.hardware.safety.table import plays
from tests.integration.seedclient import SeedClient, meta, task

BUSY_LOOPS = 16
LONG_S = 30.0
"""A hold that outlives a router."""
HELD_S = 2.0
"""How long a lane is busy that a stop has to pass."""


@contextlib.contextmanager
def stopped_soon(site: Site, pin: int = WHEEL, seconds: float = AT_ONCE_S) -> Iterator[None]:
    """Check that the body stops the drill, which is on, within so many s of its beginning."""
    start = time.monotonic()
    yield
    wait_until(lambda: not site.level(pin), 10, "the stop")
    fell = site.edges(pin)[-1].at
    assert fell - start < deadline(seconds), f"it took {fell - start:.3f} s"


def drive(client: Client, site: Site) -> None:
    """Run the drill, whose lease is an hour.

    A client made right after an arm may be one from before it, as far as is known of its clock, and has to say more.
    """
    try:
        client.call("motor.forward", "drill")
    except NotAllowed as error:
        if "call lease.acquire first" not in str(error):
            raise
        client.call("lease.acquire", ["drill"])
        client.call("motor.forward", "drill")
    site.await_level(DRILL, on=True)


@plays(7)
def a_stop_acts_wherever_it_is_in_a_package(site: Site) -> None:
    with site.client() as client, site.client() as other:
        drive(client, site)
        with site.held(other, HELD_S), stopped_soon(site, DRILL):
            calls: list[Call] = [("task_count", (1, 1), {})] * 299
            thread = threading.Thread(target=_quietly(lambda: client.run([*calls, ("system.stop", (), {})])))
            thread.start()
            site.await_level(DRILL, on=False)
        thread.join()


def _quietly(deed: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        with contextlib.suppress(TaskEngineError):
            deed()

    return run


@plays(7, response_time=3)
def a_stop_does_not_wait_in_the_clients_queue(site: Site) -> None:
    for verb in ("submit", "send"):
        with site.client() as client:
            client.info()
            drive(client, site)
            client.submit("task_count", 1, 1)
            with stopped_soon(site, DRILL):
                getattr(client, verb)("system.stop")
                site.await_level(DRILL, on=False)
            client.arm()


@plays(7)
def a_stop_passes_a_callback_of_its_own_client_that_hangs(site: Site) -> None:
    for way in ("stop", "call", "submit"):
        is_over, hangs = threading.Event(), threading.Event()

        def hang(_: Future[object], hangs: threading.Event = hangs, is_over: threading.Event = is_over) -> None:
            hangs.set()
            is_over.wait(deadline(20))

        with site.client() as client, site.client() as watching:
            watching.lease("drill")
            drive(watching, site)
            client.submit("task_count", 1, 1).add_done_callback(hang)
            client.flush()
            assert hangs.wait(deadline(20))
            try:
                with stopped_soon(site, DRILL):
                    verb = client.stop if way == "stop" else partial(getattr(client, way), "system.stop")
                    threading.Thread(target=_quietly(verb)).start()
                    site.await_level(DRILL, on=False)
            finally:
                is_over.set()
        site.arm()


@plays(7)
def a_stop_needs_no_router(site: Site) -> None:
    """It was killed a moment ago, or stands still."""
    with site.client() as client:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            client.lease("drill")
            drive(client, site)
            router = site.pid("router")
            os.kill(router, number)
            try:
                with stopped_soon(site, DRILL):
                    client.call("system.stop")
            finally:
                if number == signal.SIGSTOP:
                    os.kill(router, signal.SIGCONT)
            wait_until(lambda: bool(site.engine.pids("router")), 20, "a router")
            site.arm()


@plays(7)
def each_way_past_the_router_stops_alone(site: Site) -> None:
    ways: dict[str, Callable[[stops.Site], object]] = {
        "the guardian": stops.by_guardian,
        "the port": stops.by_port,
        "the router": stops.by_router,
        "a signal": stops.by_signal,
        "the command": _by_command,
    }
    for name, way in ways.items():
        with site.client() as client:
            drive(client, site)
            port = int(site.engine.settings["stop_port"])
            # a program has to start
            with stopped_soon(site, DRILL, AT_ONCE_S if name != "the command" else 5.0):
                way(stops.Site(client, site.address, site.engine.process.pid, port))
                site.await_level(DRILL, on=False)
            with pytest.raises(NotAllowed):
                client.call("motor.forward", "drill")
            client.arm()


def _by_command(site: stops.Site) -> object:
    command = [sys.executable, "-m", "taskengine", "stop", "--address", site.address, "--why", "a test"]
    return subprocess.run(command, check=True, capture_output=True)


@plays(7)
def a_stop_that_is_repeated_does_not_latch_again_after_an_arm(site: Site) -> None:
    path, id = stop_path(site.address), secrets.token_bytes(16)
    assert path is not None
    with site.client() as client:
        for is_again in (False, True):
            first, late = stops.ask_guardian(path, id, "a test")
            assert first > 0
            assert not late
            assert client.call("system.state")["armed"] == is_again
            if not is_again:
                client.arm()
        drive(client, site)


@plays(7, client_tasks=10)
def a_stop_is_refused_by_no_quota(site: Site) -> None:
    with site.client() as client, site.held(client, 1.0):
        waiting = [client.submit("lane.hold", 0.0) for _ in range(8)]
        client.flush()
        wait_until(lambda: client.stats().in_flight >= 9, 20, "a full quota")
        client.call("system.stop")
        client.call("system.stop")
        for one in waiting:
            one.cancel()


@plays(7, is_last=True)
def ending_the_engine_stops_within_a_second_where_its_router_hangs(site: Site) -> None:
    with site.client() as client:
        drive(client, site)
        pids = site.engine.pids()
        os.kill(site.pid("router"), signal.SIGSTOP)
        with stopped_soon(site, DRILL, 1.0):
            site.engine.process.terminate()
            site.await_level(DRILL, on=False)
    wait_until(lambda: not any(map(alive, pids)), 30, "the end of the engine")


@plays(8)
def anybody_may_bring_a_device_to_rest_past_what_waits_and_past_its_holder(site: Site) -> None:
    with site.client() as holder, site.client() as other:
        for name in ("motor.stop", "device.rest"):
            with holder.lease("drill", exclusive=True):
                drive(holder, site)
                with site.held(holder, HELD_S), stopped_soon(site, DRILL):
                    resting = other.submit(name, "drill")
                    site.await_level(DRILL, on=False)
                assert resting.result(deadline(20)) is None
        with holder.lease("drill", exclusive=True):
            drive(holder, site)
            with pytest.raises(NotAllowed):
                other.call("motor.forward", "drill", 0.5)
            other.call("motor.forward", "drill", 0.0)
            assert not site.level(DRILL)


@plays(8)
def what_was_called_before_a_rest_does_not_follow_it(site: Site) -> None:
    with site.client() as client, site.client() as other:
        drive(client, site)
        start = time.monotonic()
        with site.held(other, 1.0):
            forward = client.submit("motor.forward", "drill")
            client.flush()
            wait_until(lambda: client.stats().in_flight > 1, 20, "the command")
            client.call("motor.stop", "drill")
        assert isinstance(forward.exception(deadline(20)), Cancelled)
        calls: list[Call] = [("motor.forward", ("drill",), {}), ("motor.stop", ("drill",), {})]
        found = client.options(errors="return").run(calls)
        assert [type(one) for one in found] == [Cancelled, type(None)]
        site.settle(client)
        assert not site.turned_on(DRILL, start)
        assert client.run(calls[::-1]) == [None, None]
        assert site.level(DRILL)


@plays(8)
def a_hold_ends_where_its_holder_is_silent_though_the_lease_is_an_hour(site: Site) -> None:
    with site.program("client.lease('drill', exclusive=True)\nprint(1, flush=True)\ntime.sleep(60)") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        held = time.monotonic()
        with site.client() as other:
            with pytest.raises(NotAllowed, match="exclusively"):
                other.call("motor.forward", "drill")
            holder.kill()
            wait_until(lambda: _does(other, "motor.forward", "drill"), 2 * EXCLUSIVE_S, "the end of the hold")
            assert time.monotonic() - held > EXCLUSIVE_S - 0.5


def _does(client: Client, name: str, *args: object) -> bool:
    try:
        client.call(name, *args)
    except TaskEngineError:
        return False
    return True


@plays(8, exclusive=LONG_S)
def a_holder_is_known_again_after_the_routers_restart(site: Site) -> None:
    with site.client() as holder, site.client() as other:
        holder.lease("drill", exclusive=True)
        os.kill(site.pid("router"), signal.SIGKILL)
        wait_until(lambda: _does(holder, "motor.forward", "drill"), 20, "the holder's command")
        with pytest.raises(NotAllowed, match="exclusively"):
            other.call("motor.forward", "drill", 0.5)


@plays(8)
def another_program_of_the_same_key_takes_over_and_does_not_share(site: Site) -> None:
    with site.client() as first, site.client() as second:
        first.lease("drill", exclusive=True)
        with pytest.raises(NotAllowed):
            second.lease("drill", exclusive=True)
        second.lease("drill", exclusive=True, take_over=True)
        with pytest.raises(NotAllowed):
            first.call("motor.forward", "drill")
        drive(second, site)


@plays(9, exclusive=LONG_S)
def a_stranger_is_not_the_holder_after_the_routers_restart(site: Site) -> None:
    """Both are the first to connect to a router, by wire 0.1, where the connection is all that tells them apart."""
    address = f"tcp://127.0.0.1:{site.engine.settings['router_frontend']}"
    _restart_router(site)
    with SeedClient(address, zmq.DEALER) as holder:
        _, answer = holder.ask(meta(length=1), task("lease.acquire", ["drill"], True))
        assert "ERROR" not in answer["data"][0]
    _restart_router(site)
    start = time.monotonic()
    with SeedClient(address, zmq.DEALER) as stranger:
        _, answer = stranger.ask(meta(length=1), task("lease.acquire", ["drill"]))
        assert "exclusively" in answer["data"][0]
        stranger.ask(meta(length=1), task("motor.forward", "drill", 1.0))
    assert not site.turned_on(DRILL, start)


def _restart_router(site: Site) -> None:
    """Kill the router, and wait for the next, without connecting to it."""
    before = site.engine.output().count("(FRONTEND)] Listener online")
    os.kill(site.pid("router"), signal.SIGKILL)
    wait_until(lambda: site.engine.output().count("(FRONTEND)] Listener online") > before, 20, "another router")


@plays(10)
def a_drive_that_keeps_going_when_it_is_to_be_safe_is_refused(site: Site) -> None:
    for safe in ('"hold"', "0.5"):
        text = f'[hardware.devices.wheel]\ntype = "Motor"\nforward = 20\nbackward = 21\nsafe = {safe}\n'
        code, said = check(site.folder, text)
        assert code == 2
        assert "hardware.devices.wheel.safe" in said


def check(folder: Path, text: str) -> tuple[int, str]:
    """Return the output of `taskengine check` for a settings file."""
    (file := folder / "checked.toml").write_text(text)
    command = [sys.executable, "-m", "taskengine", "check", "--pins", "mock", "--config", str(file)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@plays(11, is_last=True)
def an_owner_rests_its_pins_where_supervisor_and_guardian_are_killed(site: Site) -> None:
    with site.client() as client:
        drive(client, site)
        owner = site.owner
        with site.held(client.options(timeout=1.0), 30.0), stopped_soon(site, DRILL, 1.0):
            signal_all([site.engine.process.pid, site.pid("guardian")], signal.SIGKILL)
            site.await_level(DRILL, on=False)
    wait_until(lambda: not alive(owner), 2, "its end")


@plays(11, is_last=True)
def an_owner_in_a_call_of_c_ends_where_supervisor_and_guardian_are_killed(site: Site) -> None:
    """It can drive nothing then, and the next owner, or the unit's last command, makes the pins safe."""
    with site.client(timeout=1.0) as client, site.held(client, 30.0, "numb"):
        owner = site.owner
        signal_all([site.engine.process.pid, site.pid("guardian")], signal.SIGKILL)
        wait_until(lambda: not alive(owner), 2, "its end")


@plays(12)
def an_owner_that_stands_still_is_ended_while_pulses_go_on_without_a_lease(site: Site) -> None:
    with site.client() as client:
        client.call("pwm.set", "heater", 0.1)
        site.await_level(HEATER, on=True)
        owner = site.owner
        os.kill(owner, signal.SIGSTOP)
        wait_until(lambda: not alive(owner), 1, "its end")
        wait_until(lambda: "is safe, its owner is dead" in site.engine.output(), 1, "the guardian")
        wait_until(lambda: _does(client, "devices.state"), 20, "another owner")
        assert client.call("devices.state", "heater")["heater"]["value"] == 0


@plays(13)
def healthy_owners_are_not_ended_on_a_busy_machine(site: Site) -> None:
    owner, said = site.owner, len(site.engine.output())
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_LOOPS)]
    try:
        end = time.monotonic() + 4.0
        with site.client() as client:
            while time.monotonic() < end:
                with contextlib.suppress(TaskEngineError):  # it may come too late
                    client.call("motor.forward", "wheel")
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    site.await_level(WHEEL, on=False)
    assert site.owner == owner
    assert "ending it" not in site.engine.output(said)


@plays(13)
def healthy_owners_are_not_ended_when_the_whole_engine_wakes(site: Site) -> None:
    owner, said = site.owner, len(site.engine.output())
    with site.client() as client:
        client.call("motor.forward", "wheel")
        pids = [site.engine.process.pid, *site.engine.pids()]
        signal_all(pids, signal.SIGSTOP)
        stopped = time.monotonic()
        wait_until(lambda: time.monotonic() > stopped + 1.5, 10, "a nap")
        signal_all(pids[::-1], signal.SIGCONT)
        site.await_level(WHEEL, on=False)
        site.settle(client)
    assert site.owner == owner
    assert "ending it" not in site.engine.output(said)


@plays(13)
def a_call_of_c_across_a_leases_end_ends_no_owner_whose_output_is_safe(site: Site) -> None:
    owner, said = site.owner, len(site.engine.output())
    with site.client() as client:
        client.lease("wheel")
        with contextlib.suppress(WorkerLost):
            client.call("lane.numb", 1.0)
        site.settle(client)
    assert site.owner == owner
    assert "ending it" not in site.engine.output(said)
