"""Compute thousands of numbers in one package: `python packages.py`. With numpy the arguments are sent as columns."""

from __future__ import annotations

import argparse
import time

import numpy

from taskengine import Client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", default="tcp://127.0.0.1:9000")
    parser.add_argument("--tasks", type=int, default=4000, help="how many")
    options = parser.parse_args()
    turns = numpy.linspace(0.0, 2 * numpy.pi, options.tasks)
    x, y = 0.10 + 0.05 * numpy.cos(turns), 0.05 * numpy.sin(turns)
    with Client(options.address, timeout=30.0) as engine:
        begin = time.perf_counter()
        angles = engine.map("arm.elbow", x, y)  # an array, as x and y are
        taken = time.perf_counter() - begin
        print(f"{len(angles)} angles from {angles.min():.1f} to {angles.max():.1f} degrees, in {taken * 1000:.1f} ms")

        # one point that the arm cannot reach: errors="return" puts the error into the place of its result
        angles = engine.options(errors="return").map("arm.elbow", [0.1, 9.0], [0.0, 0.0])
        print(f"{angles[0]:.1f} degrees, and {type(angles[1]).__name__}: {angles[1]}")


if __name__ == "__main__":
    main()
