"""The limits of both wires. docs/protocol.md describes them in prose."""

from __future__ import annotations

from typing import Final

MAX_DEPTH: Final = 64
"""The most levels of lists and maps in one value."""
MAX_NUMBER_KEYS: Final = 2**14
"""The most keys of a map, or elements of a set, that has other ones than text and bytes,"""
MAX_EQUAL_HASHES: Final = 64
"""and of which Python hashes so many alike, where extensions may be among them."""
MAX_TASKS: Final = 2**21
"""The most tasks in a package."""
MAX_CHANGES: Final = 2**13
"""The most often that the tasks of a package may change from lane to lane: each change takes the router 10 us."""
MAX_RUNS: Final = 2**16
"""The most runs of neighbouring positions in which the cancelled tasks of a package may lie."""
MAX_NAMES: Final = 1024
"""The most names of tasks in a package."""
MAX_BODY: Final = 64 * 2**20
"""The most bytes of tasks in a package, and of results in an answer."""
MAX_HEAD: Final = 2**16
"""The most bytes in the first frame of a message: it goes with every slice of its package."""
MAX_TOPIC: Final = 255
"""The most bytes in a subscription."""
MAX_TOKEN: Final = 64
"""The most bytes in the token of a client object, and in the id of a stop."""
MAX_ID: Final = 1024
"""The most bytes in the fields of a META frame that are repeated: its serial, its pack, an id."""
MAX_LEGACY_DATA: Final = 2**20
"""The most bytes in a data request of wire 0.1, which the router has to read."""
MAX_MESSAGE: Final = MAX_BODY + 2**20
"""The most bytes in a frame: a full body, with what stands around it."""
DENIED_TASKS: Final = 4096
"""The most tasks of a package that may be denied, each with an error of its own,"""
DENIED_RUNS: Final = 512
"""in so many runs."""
LONGEST_DEADLINE_S: Final = 1e9
"""A deadline that is later than this, in s, is none."""
PRIORITIES: Final = 4
REPEATS: Final = 2
"""The number of times that a client sends an idempotent package again after its router was lost."""
MAX_TOPICS: Final = 1024
"""The most topics whose last value a data worker keeps. Topics of one client are at most half of them."""
LAST_BYTES: Final = 64 * 2**20
"""The most bytes of these last values. Values of one client are at most half of them."""
FEED_BYTES: Final = 2**17
"""About the most bytes of a value that a task publishes."""
HANDSHAKE_RATE: Final = 50.0
"""Connections per second of a key, and of an address of another machine,"""
HANDSHAKE_BURST: Final = 200
"""and at once after a pause: a whole fleet reconnects when the engine starts again."""
MAX_NAME_LENGTH: Final = 128
"""Characters of an unknown task's name that its error repeats."""
MAX_ERROR_TEXT: Final = 4096
"""Characters of an exception's text that the client gets."""
MAX_TRACEBACK: Final = 16384
"""Characters of its traceback."""
DEFAULT_ADDRESS: Final = "tcp://127.0.0.1:9000"
DEFAULT_RESPONSE_TIME: Final = 0.005
"""How often a client flushes its queue, in s, until the engine has told it."""
DEFAULT_FULL_LOAD: Final = 20
"""Queued calls that a client sends at once, until the engine has told it its own figure."""
MAX_CLIENTS: Final = 1024
"""Clients that the router remembers although it owes them nothing."""
MAX_LANE: Final = 1024
"""The most workers in a lane, and the most tasks that one of them runs at once."""
