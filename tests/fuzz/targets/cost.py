"""The router's work for a message of a client costs no more than a bound that is linear in its bytes.

The router's own code runs without sockets and in one thread, so that the count is the same each time (tests.fuzz.cost).
A step of an input is a message as it comes, or says of a large one how it is made, and how often it is sent: few bytes
of an input stand for many names, tasks or positions.
"""

from __future__ import annotations

import os
import random
import zlib
from functools import cache
from typing import Any, cast

import msgspec

from taskengine.broker.broker import Broker
from taskengine.broker.quota import QuotaLimits
from taskengine.broker.topics import data_lane
from taskengine.config.policy import Entry
from taskengine.config.settings import Settings
from taskengine.protocol.layouts import MAGIC
from taskengine.protocol.messages import Cancel, Request, RequestKind, StreamCredit, TaskInfo, encode_request
from taskengine.router.frontend import Frontend
from taskengine.runtime.log_buffer import LogBuffer
from taskengine.security.audit import Audit
from tests.batches import join_frames, task
from tests.fuzz import mutate
from tests.fuzz.cost import Meter, check_linear
from tests.fuzz.inputs import SEPARATOR, TEXT_SEPARATOR, joined, number
from tests.fuzz.targets import packed, seed

MAX_BYTES = 500
STEP = b"\xc1>\xc1"
STEPS = 8
PACKED, SEED, BUILT = range(3)
"""Meanings of a step's first byte: frames of wire 0.2, of wire 0.1, or how a message is made."""
LARGEST, MOST_REPEATS, MOST_BYTES = 9, 5, 2**13
"""The most names, tasks, positions and repeats, as powers of two, and bytes of all repeats."""
HOWS = 8
"""Bytes that say how: kind, names, which names, tasks, which of the names they have, serial, repeats, size."""
URGENT = "halt"
PATTERNS = ["task_*", URGENT, *(f"x*{letter}" for letter in "abcdefghijklmnopqr")]
TASKS = {"task_count": "", "arm.wave": "arm", "io.read": "io", URGENT: ""}
TOKENS = [STEP, STEP + bytes([BUILT]), *packed.TOKENS]
CLIENT = b"\0abcd"


class _NoPort:
    """A port at which nothing is sent."""

    user, peer, descriptor = "", "127.0.0.1", -1

    def send(self, frames: object, debt: object = None) -> None:
        """Forget it."""


class Desk:
    """The router's side towards clients, under a policy, and its broker, which has no workers."""

    def __init__(self) -> None:
        rights = Entry(members=("*",), tasks=tuple(PATTERNS), publish=("*",), subscribe=("*",), calls=("stats",))
        settings = Settings(enable_stdout=False, policy={"everybody": rights})
        lanes = settings.lanes_with(TASKS.values()) | {data_lane(0): 1}
        self.broker = Broker(10, lanes, limits=QuotaLimits(*(2**14, 2**24, 2**15, 2**25, 2**10, 2**11)))
        journal = _journal()
        audit = Audit(None, journal.say)
        self.reception = Frontend(settings, self.broker, cast(Any, _NoPort()), None, audit, journal, lambda _: None)
        self.reception.learn(
            [TaskInfo(name, lane, "()", "", None, False, "x", name == URGENT) for name, lane in TASKS.items()]
        )

    def clear(self) -> None:
        """The client leaves, and what it had in flight is over."""
        self.broker.withdrawals.client_left(CLIENT)
        self.reception.deliver(self.broker.settle(1.0))


def _opened() -> Desk:
    """A desk behind its first messages, by which much is looked up that is kept."""
    desk = Desk()
    for kind in RequestKind:
        desk.reception.take([CLIENT, *_built(kind - 1, 0, 0, 0, 0, 0, 0, 0)], b"", b"", 1.0)
    desk.clear()
    return desk


def seeds() -> list[bytes]:
    """Messages of both wires as they come, and one of each kind that is made."""
    raw = [bytes([PACKED]) + joined(packed.frames_of(data)) for data in packed.seeds()]
    texts = [bytes([SEED]) + data for data in seed.seeds()]
    made = [bytes([BUILT, kind - 1, 3, kind, 4, 1, 1, 1, 8]) for kind in RequestKind]
    naps = bytes([BUILT, RequestKind.PACKAGE - 1, 0, 0, 2, 0, 1, 3, 8])
    made += [bytes([BUILT, 0, names, which, tasks, 1, 1, 0, 0]) for names, which, tasks in ((9, 133, 0), (0, 5, 9))]
    return [
        *raw[::3],
        *texts[::4],
        *made,
        STEP.join([naps, made[RequestKind.CANCEL - 1]]),
        STEP.join([naps, made[RequestKind.PROGRESS - 1]]),
    ]


def fuzz(data: bytes) -> None:
    """Steps, of one client, which leaves then; where there are fewer than STEPS, others like them follow."""
    steps = data.split(STEP)[:STEPS]
    chance = random.Random(zlib.crc32(data))
    steps += [mutate.mutated(chance, steps, TOKENS) for _ in range(STEPS - len(steps))]
    messages = [message for step in steps for message in _messages(number(step) % 3, step[1:])]
    desk, meter = _opened(), Meter()
    with meter:
        for message in messages:
            desk.reception.take(*message, 1.0)
        desk.clear()
    check_linear(meter.cost, len(messages), sum(map(_size, messages)))


@cache
def _journal() -> LogBuffer:
    return LogBuffer(os.open(os.devnull, os.O_WRONLY), enabled=False)


Message = tuple[list[bytes], bytes, bytes]
"""The result of `Port.receive_request`: frames, and, of wire 0.1, the index and the body of the tasks."""


def _size(message: Message) -> int:
    frames, index, body = message
    return sum(map(len, frames)) + len(index) + len(body)


def _messages(kind: int, said: bytes) -> list[Message]:
    if kind == BUILT:
        how = [*said[:HOWS], *bytes(HOWS - len(said[:HOWS]))]
        message: Message = [CLIENT, *_built(*how)], b"", b""
        return [message] * max(1, min(2 ** (how[6] % (MOST_REPEATS + 1)), MOST_BYTES // _size(message)))
    frames = said.split(SEPARATOR if kind == PACKED else TEXT_SEPARATOR)
    if frames[0].startswith(MAGIC):
        return [([CLIENT, *frames], b"", b"")]
    return [([CLIENT, frames[0]], *join_frames(frames[1:]))]


def _built(kind: int, names: int, which: int, tasks: int, stride: int, serial: int, repeats: int, size: int) -> Any:
    """The frames of a message of wire 0.2."""
    count, tasks = 2 ** (names % (LARGEST + 1)), 2 ** (tasks % (LARGEST + 1))
    wanted = list(RequestKind)[kind % len(RequestKind)]
    prefixes = [*TASKS, "x{}a", "x{}z", "{}", "task_{}"]
    prefix = prefixes[which % len(prefixes)]
    listed = [prefix.format(k) for k in range(count)]
    if which & 128:
        listed[0] = URGENT
    head = encode_request(Request(wanted, 1 + serial % 4, "x", listed))
    if wanted == RequestKind.PACKAGE:
        calls = [task(k * stride % count, bytes(size)) for k in range(tasks)]
        return [head, *join_frames(calls)]
    if wanted == RequestKind.CANCEL:
        return [head, msgspec.msgpack.encode(Cancel(serial % 4, [k * stride % tasks for k in range(tasks)]))]
    if wanted == RequestKind.CREDIT:
        return [head, msgspec.msgpack.encode(StreamCredit(serial % 4, names, size))]
    if wanted in (RequestKind.PUBLISH, RequestKind.LATEST):
        return [head, msgspec.msgpack.encode([prefix, bytes(size)][: 2 if wanted == RequestKind.PUBLISH else 1])]
    return [head, b"\xc0" * size][: 1 + stride % 2]
