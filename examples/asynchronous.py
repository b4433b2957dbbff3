"""Do several things at once with asyncio: blink, compute and look at a sensor; `python asynchronous.py`."""

from __future__ import annotations

import argparse
import asyncio

from taskengine.aio import Client


async def blink(engine: Client) -> None:
    """Switch the lamp on and off until this is cancelled."""
    while True:
        await engine.call("gpio.toggle", "lamp")
        await asyncio.sleep(0.05)


async def compute(engine: Client) -> None:
    """Call 20 tasks at once; a call that is awaited with others does not wait for them."""
    reach = [0.03 + 0.009 * step for step in range(20)]
    angles = await asyncio.gather(*(engine.call("arm.elbow", x, 0.0) for x in reach))
    print(f"{len(angles)} angles, from {min(angles):.1f} to {max(angles):.1f} degrees")


async def look(engine: Client, number: int) -> None:
    """Print so many samples of a sensor."""
    async with engine.subscribe("hardware.load") as samples:
        for _ in range(number):
            sample = await samples.get()
            print(f"load {sample.value['value']}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="?", default="tcp://127.0.0.1:9000")
    parser.add_argument("--samples", type=int, default=5)
    options = parser.parse_args()
    async with Client(options.address, timeout=5.0) as engine:
        blinking = asyncio.create_task(blink(engine))
        async with asyncio.timeout(60):
            await asyncio.gather(compute(engine), look(engine, options.samples))
        blinking.cancel()
        await asyncio.wait([blinking])
        await engine.call("gpio.write", "lamp", False)
        print("the lamp is off")


if __name__ == "__main__":
    asyncio.run(main())
