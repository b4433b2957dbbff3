"""The task file that one writes first: it opens its port when it is imported, as any Python script does."""

import fcntl
import logging
import os
import time
from multiprocessing import Pool

from motors import steps

from taskengine import task

PORT = os.environ.get("FIRST_TASKS_PORT", "/dev/ttyUSB0")

port = os.open(PORT, os.O_RDWR | os.O_NOCTTY)
fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as pyserial does with exclusive=True


@task(lane="arm")
def turn(degrees: float) -> int:
    """Turn the motor."""
    count = steps(degrees)
    print(f"turning by {count} steps")
    os.write(port, f"TURN {count}\n".encode())
    return count


@task(lane="arm", timeout=2.0)
def settle(seconds: float) -> str:
    """Wait until the arm stands still."""
    logging.warning("waiting for %g s", seconds)
    time.sleep(seconds)
    return "still"


@task(lane="arm")
def plan(angles: list[float]) -> list[int]:
    """Compute with two more processes."""
    with Pool(2) as pool:
        return pool.map(steps, angles)


@task(lane="arm")
def grip(force: float) -> None:
    """Close the gripper."""
    if force > 10:
        raise ValueError(f"a force of {force:g} N breaks the egg")
