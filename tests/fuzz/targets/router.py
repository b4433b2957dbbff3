"""The router behind real sockets: whatever clients, strangers and workers send, it answers every message of a client
once, and an honest request with the truth.

The router runs in a thread of this process, so that where it has been guides. What plays its clients, its workers and
its supervisor is tests.fuzz.stage.
"""

from __future__ import annotations

import random
import zlib
from functools import cache

from taskengine.protocol.layouts import NO_ANSWER
from taskengine.runtime.topology import HEARTBEAT, HELLO
from tests.fuzz import mutate
from tests.fuzz.inputs import SEPARATOR, TEXT_SEPARATOR, joined, number
from tests.fuzz.stage import Stage
from tests.fuzz.targets import packed, seed

MAX_BYTES = 1000
STEP = b"\xc1>\xc1"
"""Between the steps of an input."""
STEPS = 16
"""In each input; where it has fewer, others like them follow."""
PACKED, SEED, DELIMITED, STRANGER, ANSWER, EXTRA, DEATH, HOLD = range(8)
"""Meanings of a step's first byte: which peer sends the rest, or which worker dies, or holds back its tasks."""
TOKENS = [STEP, *(STEP + bytes([kind]) for kind in range(8)), *packed.TOKENS, *seed.TOKENS, HELLO, HEARTBEAT, NO_ANSWER]


def seeds() -> list[bytes]:
    """Messages of both wires, one by one and together, and what workers may do between them."""
    packages = [bytes([PACKED]) + joined(packed.frames_of(data)) for data in packed.seeds()]
    texts = [bytes([SEED]) + data for data in seed.seeds()]
    stranger = bytes([STRANGER]) + joined([HELLO, bytes(32), b"\x94\xa1x\xa0\x00\x01"])
    odd = [bytes([ANSWER, 0]), bytes([ANSWER, 1]) + NO_ANSWER, bytes([EXTRA, 0]) + b"x", bytes([EXTRA, 1]) + HEARTBEAT]
    odd += [bytes([DEATH, 0]), bytes([DEATH, 1]), bytes([HOLD, 0]), bytes([HOLD, 1]), stranger]
    mixed = [STEP.join([packages[9], step, packages[11 + place % 3]]) for place, step in enumerate(odd)]
    return [*packages[::2], *texts[::2], *mixed, bytes([DELIMITED]) + packages[8][1:], STEP.join(packages[8:12])]


@cache
def _stage() -> Stage:
    return Stage()


def fuzz(data: bytes) -> None:
    """Steps; behind them an honest request."""
    steps = data.split(STEP)[:STEPS]
    chance = random.Random(zlib.crc32(data))
    steps += [mutate.mutated(chance, steps, TOKENS) for _ in range(STEPS - len(steps))]
    stage = _stage()
    for step in steps:
        _take(stage, number(step) % 8, step[1:])
    stage.check()


def _take(stage: Stage, kind: int, said: bytes) -> None:
    if kind == SEED:
        stage.ask(said.split(TEXT_SEPARATOR))
    elif kind == PACKED:
        stage.ask(said.split(SEPARATOR))
    elif kind == DELIMITED:
        stage.ask([b"", *said.split(SEPARATOR)])
    elif kind == STRANGER:
        stage.intrude(said.split(SEPARATOR))
    else:
        worker = stage.workers[number(said) % len(stage.workers)]
        if kind == ANSWER:
            worker.answer(said[1:])
        elif kind == EXTRA:
            worker.say(said[1:].split(SEPARATOR))
        elif kind == DEATH:
            stage.kill(worker.name)
        else:
            worker.hold()
