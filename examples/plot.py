"""Plot a sensor: `python plot.py --topic hardware.load --samples 100 --file load.png`.

The plot needs matplotlib (`pip install matplotlib`) on the machine that draws it, and nothing on the robot.
"""

from __future__ import annotations

import argparse

from matplotlib.figure import Figure

from taskengine import Client


def measure(engine: Client, topic: str, number: int) -> tuple[list[float], list[float]]:
    """Return the times, in s since the first one, and the values of so many samples of a device."""
    times: list[float] = []
    values: list[float] = []
    with engine.subscribe(topic) as samples:
        while len(values) < number:
            reading = samples.get(timeout=10.0).value
            if reading["value"] is None:  # it could not be measured; reading["reason"] says why
                continue
            times.append(reading["time"])
            values.append(reading["value"])
    return [time - times[0] for time in times], values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", nargs="?", default="tcp://127.0.0.1:9000")
    parser.add_argument("--topic", default="hardware.load")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--file", default="plot.png", help="a .png, .svg or .pdf")
    options = parser.parse_args()
    with Client(options.address, timeout=5.0) as engine:
        times, values = measure(engine, options.topic, options.samples)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="s", ylabel=options.topic)
    axes.plot(times, values, marker=".")
    figure.savefig(options.file)
    print(f"{len(values)} samples of {times[-1]:.1f} s are in {options.file}")


if __name__ == "__main__":
    main()
