"""Drive the rover from anywhere: `python patrol.py tcp://robot.local:9000`; ctrl-c ends it, and the rover stops."""

from __future__ import annotations

import argparse
import sys
import time

from taskengine import Client, NotAllowed, TaskEngineError

PERIOD_S = 0.1
"""How often it commands: the lease runs for 0.5 s, and the ramp takes the last 0.2 s of it."""
BACK_S = 0.8
TURN_S = 0.5
Speeds = tuple[float, float]


class Driver:
    """Somebody who drives, and who has to ask for every tenth of a second anew."""

    def __init__(self, engine: Client, speed: float) -> None:
        self._engine = engine
        self._speed = speed
        self._told = ""

    def drive(self, seconds: float | None) -> None:
        """Drive ahead; back off and turn where that is refused. Raises NotAllowed when the machine was stopped."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            if not self._go((self._speed, self._speed)):
                self._for(BACK_S, (-self._speed / 2, -self._speed / 2))
                self._for(TURN_S, (-self._speed / 2, self._speed / 2))

    def _for(self, seconds: float, speeds: Speeds) -> None:
        """Go on so for a while, as long as it is not refused."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._go(speeds):
            pass

    def _go(self, speeds: Speeds) -> bool:
        """Command these speeds for a period; return whether they were not refused."""
        try:
            self._engine.call("devices.write", {"awake": True, "base": speeds})
        except NotAllowed as error:
            if not self._engine.call("system.state")["armed"]:
                raise
            self._say(f"held: {error}")
            is_going = False
        else:
            state = self._engine.call("devices.state", "base")["base"]
            self._say(", ".join([f"going {state['value']}", *state.get("rules", [])]))
            is_going = True
        time.sleep(PERIOD_S)
        return is_going

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            print(text, flush=True)


def main() -> None:
    """Drive, for so many seconds or until ctrl-c."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", default="tcp://127.0.0.1:9000")
    parser.add_argument("--seconds", type=float, help="how long; until ctrl-c without it")
    parser.add_argument("--speed", type=float, default=0.8, help="of the wheels, 0 to 1")
    options = parser.parse_args()
    try:
        with (
            Client(options.address, name="ROVER", timeout=5.0) as engine,
            engine.lease("base", "awake", exclusive=True),
        ):
            Driver(engine, options.speed).drive(options.seconds)
    except KeyboardInterrupt:
        print("let go: the rover stands within half a second")
    except TaskEngineError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
