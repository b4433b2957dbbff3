"""Drive the arm from anywhere: `python drive.py tcp://robot.local:9000`; ctrl-c ends it, and the arm goes safe."""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from taskengine import Client, TaskEngineError, TaskTimeout
from taskengine.client.lease import Lease
from taskengine.client.subscription import Subscription

JOINTS = ("base", "shoulder", "elbow", "gripper")
POSES = ("left", "right", "ready")
RENEWAL_S = 0.1
"""How often the leases are renewed at least: they run for 0.5 s."""
PAUSE_S = 0.3
"""How long the arm stays where it was sent."""


class Driver:
    """Somebody who drives the arm, whose leases run for as long as `spend` is called."""

    def __init__(self, engine: Client, lease: Lease, samples: Subscription) -> None:
        self._engine = engine
        self._lease = lease
        self._samples = samples

    def round(self) -> None:
        """Go through the poses, then grip, wave and rest."""
        for name in POSES:
            self._go("arm.pose", name)
        self._engine.call("servo.set", "gripper", 0.5)
        self._go("arm.wave", 2)
        self._go("arm.pose", "rest")

    def spend(self, seconds: float) -> None:
        """Let time pass, in the loop that drives: where this hangs, the leases lapse, and the arm goes safe."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._lease.renew()
            try:
                sample = self._samples.get(timeout=RENEWAL_S)
            except TaskTimeout:  # nothing has changed
                continue
            if sample.topic == "hardware.system":  # of the machine as a whole: a stop ends us at the next command
                continue
            print(f"  {sample.topic} = {sample.value['value']}", flush=True)
            if sample.topic == "hardware.stop" and sample.value["value"]:
                self._engine.call("system.stop")
                sys.exit("the stop button is pressed; system.arm lets the arm move again")

    def _go(self, task: str, argument: str | int) -> None:
        self.spend(self._engine.call(task, argument) + PAUSE_S)
        state = self._engine.call("devices.state", *JOINTS)
        where = ", ".join(f"{joint} {state[joint]['value']}" for joint in JOINTS)
        print(f"{task} {argument}: {where}", flush=True)


def main() -> None:
    """Drive, for so many rounds or until ctrl-c."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", default="tcp://127.0.0.1:9000")
    parser.add_argument("--rounds", type=int, help="how many; until ctrl-c without it")
    options = parser.parse_args()
    try:
        with (
            Client(options.address, name="ARM", timeout=5.0) as engine,
            engine.subscribe("hardware.*") as samples,
            engine.lease(*JOINTS, "status", exclusive=True) as lease,
        ):
            driver = Driver(engine, lease, samples)
            for _ in itertools.count() if options.rounds is None else range(options.rounds):
                driver.round()
    except KeyboardInterrupt:
        print("let go: the arm is safe within half a second")
    except TaskEngineError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
