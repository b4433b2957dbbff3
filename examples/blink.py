"""Blink an LED: `python blink.py`, or `python blink.py tcp://robot.local:9000` from another machine; ctrl-c ends it."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time

from taskengine import Client


def blink(engine: Client, times: int | None, seconds: float) -> None:
    """Switch the lamp on and off, so many times, or until ctrl-c."""
    for _ in itertools.count() if times is None else range(times):
        engine.call("gpio.write", "lamp", True)
        print("on", flush=True)
        time.sleep(seconds)
        engine.call("gpio.write", "lamp", False)
        print("off", flush=True)
        time.sleep(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", default="tcp://127.0.0.1:9000")
    parser.add_argument("--times", type=int, help="how many times; until ctrl-c without it")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long it is on, and off; less than its lease")
    options = parser.parse_args()
    with Client(options.address, timeout=5.0) as engine, contextlib.suppress(KeyboardInterrupt):
        blink(engine, options.times, options.seconds)


if __name__ == "__main__":
    main()
