"""Turn the robot's servo from a laptop: `python servo.py tcp://robot.local:9000 --angles 45 -45 0`.

The laptop needs a key first: see docs/network.md. On the robot itself the address may be left out.
"""

from __future__ import annotations

import argparse
import sys
import time

from taskengine import Client, TaskEngineError
from taskengine.client.lease import Lease

RENEWAL_S = 0.1
"""How often the lease is renewed. It runs for 0.5 s: where this program hangs or the network ends, it is released."""


def turn(engine: Client, lease: Lease, angle: float, seconds: float) -> None:
    """Move to an angle in so many seconds, or as soon as the servo's limits allow, and wait until it is there."""
    end = time.monotonic() + engine.call("servo.move", "pan", angle, seconds)
    while time.monotonic() < end:
        lease.renew()
        time.sleep(RENEWAL_S)
    print(f"at {engine.call('devices.state', 'pan')['pan']['value']:g} degrees", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", nargs="?", default="tcp://127.0.0.1:9000")
    parser.add_argument("--angles", type=float, nargs="+", default=[45.0, -45.0, 0.0], help="in degrees")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each motion takes")
    options = parser.parse_args()
    try:
        with (
            Client(options.address, name="LAPTOP", timeout=5.0) as engine,
            engine.lease("pan", exclusive=True) as lease,
        ):
            for angle in options.angles:
                turn(engine, lease, angle, options.seconds)
    except TaskEngineError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
