"""`python -m bench.demo`: the seed's sample communication, on an engine of its own, checked; then 4000 tasks at once.

The client here is a plain ZeroMQ socket that sends the seed's frames; the second part uses the Python client.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from bench.compiled import NotCompiled, check_compiled

if TYPE_CHECKING:
    from bench.engine import Engine

SAMPLE = 63
SAMPLE_CHUNK = 10
SAMPLE_SIZES = [8] * 7 + [7]
MANY = 4000
MANY_CHUNK = 50
TIMES = 10
RESULT = 2.5
LINES_S = 10.0


class DemoFailed(Exception):
    """The engine did not do what the seed says."""


def main() -> int:
    """The exit code: 0 where all was right, 1 otherwise."""
    try:
        check_compiled()
    except NotCompiled as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    # only now: what these import needs the compiled extension
    from bench.engine import EngineFailed
    from bench.ours import NoReply
    from taskengine import TaskEngineError

    try:
        play_sample()
        play_many()
    except (DemoFailed, EngineFailed, NoReply, TaskEngineError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def play_sample() -> None:
    """63 tasks at chunk size 10 over wire 0.1. Raises DemoFailed."""
    from bench.engine import Engine
    from bench.ours import Seed, message

    _title(f"{SAMPLE} tasks at chunk size {SAMPLE_CHUNK}, over wire 0.1")
    with Engine(chunking_size=SAMPLE_CHUNK, enable_stdout=True) as engine:
        print("\n".join(beginning(engine.output())) + "\n")
        client = Seed("demo", engine.address)
        try:
            frames = message(SAMPLE)
            start = time.perf_counter()
            reply = client.exchange(frames)
            elapsed = time.perf_counter() - start
        finally:
            client.close()
        serial = json.loads(frames[0])["serial"]
        print(received(reply))
        print(f"running {SAMPLE} samples, took: {elapsed:.6f}\n")
        check_sample([json.loads(frame) for frame in frames], reply)
        lines = _engine_lines(engine, serial)
        ending = engine.stop().partition("Closing application")
    print("\n".join(lines))
    print(f"\n{''.join(ending[1:])}", end="")
    chunks = [line for line in lines if "Received task: " in line]
    if len(chunks) != len(SAMPLE_SIZES):
        raise DemoFailed(f"the workers received {len(chunks)} chunks, not {len(SAMPLE_SIZES)}")
    print(f"\n{len(chunks)} chunks, {SAMPLE} correct answers in order")


def beginning(output: str) -> Iterator[str]:
    """Return the lines that the engine printed before its first package, a question whether it answers.

    A worker's line of a package may come before the router's.
    """
    return takewhile(lambda line: "Chunking: " not in line and "Received task: " not in line, output.splitlines())


def check_sample(sent: list[dict[str, Any]], reply: list[dict[str, Any]]) -> None:
    """Hold the reply against what was sent, both as frames read. Raises DemoFailed."""
    meta, *parts = reply
    expected = {"type": "ACK", "role": "assembler", "serial": sent[0]["serial"], "pack": sent[0]["pack"]}
    expected |= {"size": len(SAMPLE_SIZES), "part": len(SAMPLE_SIZES), "length": 1, "version": 0.1}
    wrong = {key: meta.get(key) for key, value in expected.items() if meta.get(key) != value}
    if wrong:
        raise DemoFailed(f"the reply's META has {wrong}, expected {expected}")
    sizes = [part["size"] for part in parts]
    if sizes != SAMPLE_SIZES:
        raise DemoFailed(f"the chunks' sizes are {sizes}, not {SAMPLE_SIZES}")
    entries = [entry for part in parts for entry in part["data"]]
    if entries != [f"job-{task['pack']}: {RESULT}" for task in sent[1:]]:
        raise DemoFailed(f"the answers are not those of the tasks, in order: {entries}")


def received(reply: list[dict[str, Any]]) -> str:
    """The frames as the client got them, edited for readability: two response entries a line."""
    meta, *parts = reply
    lines = ["[CLIENT] recv: [", f"\t'{json.dumps(meta)}',"]
    for part in parts:
        entries = [json.dumps(entry) for entry in part["data"]]
        pairs = [", ".join(entries[first : first + 2]) for first in range(0, len(entries), 2)]
        lines.append(f'\t\'{{"size": {part["size"]}, "data": [')
        lines.append(",\n".join(f"\t\t{pair}" for pair in pairs) + f'], "pack": {json.dumps(part["pack"])}}}\',')
    return "\n".join([*lines, "]"])


def play_many() -> None:
    """4000 tasks at chunk size 50 by the Python client, several times. Raises DemoFailed."""
    from bench.engine import Engine
    from taskengine import Client

    _title(f"{MANY} tasks at chunk size {MANY_CHUNK}, by the Python client")
    took = []
    with Engine(chunking_size=MANY_CHUNK, enable_stdout=False) as engine:
        with Client(engine.address, name="DEMO") as client:
            for _ in range(TIMES):
                # results that differ, so that the order shows
                first, second = range(MANY), range(1, 2 * MANY, 2)
                start = time.perf_counter()
                results = client.map("task_count", first, second)
                took.append(time.perf_counter() - start)
                if results != [(a + b) / 2 for a, b in zip(first, second, strict=True)]:
                    raise DemoFailed(f"{MANY} tasks gave wrong answers, or in another order")
        engine.stop()
    print(f"{MANY} correct answers in order, {TIMES} times")
    print(f"took: median {statistics.median(took):.6f}, least {min(took):.6f}, most {max(took):.6f}")


def _engine_lines(engine: Engine, serial: str) -> list[str]:
    """Return the engine's lines about the package, which come a little after the reply. Raises DemoFailed."""
    end = time.monotonic() + LINES_S
    while time.monotonic() < end:
        lines = [line for line in engine.output().splitlines() if serial in line]
        shipped = any("Shipped" in line for line in lines)
        if shipped and sum("Received task: " in line for line in lines) >= len(SAMPLE_SIZES):
            return lines
        time.sleep(0.01)
    raise DemoFailed(f"the engine did not print the way of package {serial}:\n{engine.output()}")


def _title(text: str) -> None:
    print(f"\n=== {text} ===\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
