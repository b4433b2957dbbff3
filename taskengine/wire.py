"""What is on the wires, once: constants, limits and layouts. docs/protocol.md says the same in prose.

A 0.2 package of a client is three frames, `[head, INDEX, BODY]`; the reply to it two, `[head, BODY]`.

    head  = MAGIC, MessagePack array (messages.Request, messages.Reply)
    INDEX = u32 for each task: where it ends in BODY; of columns of numbers, a byte for each argument, `f` or `i`
    BODY  = of a package, tasks end to end: `[i, args]` or `[i, args, kwargs]`, i the place of the task's name in the
            head, or columns of numbers, float64 or int64, end to end; of a reply, one value for each task, an error
            being an ext ERROR_EXT of `[code, message, fields]`

Router and workers exchange single frames, a batch of slices and the answer to it:

    batch   = BATCH(number, sections, slice ns), section*
    section = SECTION(job, deadline ns, part, first, count, lead, larger, size, base, body, head, format, reply),
              head, slice of the INDEX, slice of the BODY that starts at base;
              of columns, base is their number, INDEX is whole, and the slices of the columns lie end to end
    answer  = COUNT entries, entry*
    entry   = ENTRY(job, first, count, failed, elapsed ns, body), body

A section is a slice of a package: `count` tasks from position `first`, in chunks. The first `lead` tasks end chunk
`part`; of the chunks after it `larger` have `size` + 1 tasks, the others `size`; the last ends where the slice does.
Its deadline is on the monotonic clock, 0 for none. A worker that has been at a batch for `slice ns` (0 for no limit)
ends the chunk it is at and hands the rest back, by answering without it: the entries of an answer are what was done.
The worker keeps its account of the batch under the batch's number in its slate, which `_slate.pxi` lays out.

All integers are little-endian, nothing is padded.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

VERSION: Final = 2
SEED_VERSION: Final = 0.1

MAGIC: Final = b"TE\x02"
"""How the first frame of a 0.2 message begins; a 0.1 one begins with a JSON object."""

ERROR_EXT: Final = 1
"""The MessagePack extension code of an error entry; reserved, so no value of a task may use it."""
ARRAY_EXT: Final = 2
"""The MessagePack extension code of a numpy array; taskengine.arrays has its layout."""


class Format(IntEnum):
    """What a section holds."""

    PACKED = 0
    """Tasks of wire 0.2; a slice is answered by one piece of the body of a 0.2 reply."""
    SEED = 1
    """TASK frames of wire 0.1; each chunk is answered by one DATA frame."""
    DATA = 2
    """A data request; answered by one value of wire 0.2."""
    COLUMNS = 3
    """Calls of one task of wire 0.2 whose arguments are columns of numbers; answered like PACKED, ints in 64 bits."""


COUNT: Final = Struct("<I")
NO_ANSWER: Final = COUNT.pack(2**32 - 1)
"""The answer to a batch that ran and whose results do not fit into one message."""
BATCH: Final = Struct("<QIQ")
SECTION: Final = Struct("<QQIIIIIIIIIBB")
ENTRY: Final = Struct("<QIIIQI")

MAX_DEPTH: Final = 64
"""How deep lists and maps may nest in one value."""
MOST_NUMBERS: Final = 2**14
"""The most keys of a map that has other keys than text and bytes."""
MAX_TASKS: Final = 2**21
"""The most tasks in a package."""
MAX_CHANGES: Final = 2**13
"""The most often that the tasks of a package may change from lane to lane: each takes the router 10 us."""
MAX_RUNS: Final = 2**16
"""The most places in which the cancelled tasks of a package may lie."""
MAX_NAMES: Final = 1024
"""The most names of tasks in a package."""
MAX_BODY: Final = 64 * 2**20
"""The most bytes of tasks in a package, and of results in an answer."""
MAX_HEAD: Final = 2**16
"""The most bytes in the first frame of a message: it goes with every slice of its package."""
MAX_TOPIC: Final = 255
"""The most bytes in what a subscriber subscribes to."""
MAX_TOKEN: Final = 64
"""The most bytes in what tells a client's objects apart, and in what tells a stop from others."""
MAX_ID: Final = 1024
"""The most bytes in what a META frame repeats: its serial, its pack, an id."""
MAX_SEED_DATA: Final = 2**20
"""The most bytes in a data request of wire 0.1, which the router has to read."""
MAX_MESSAGE: Final = MAX_BODY + 2**20
"""The most bytes in a frame: a full body, with what stands around it."""
SLATE_HEAD: Final = 2**16
"""Bytes of a slate before its panes, which are in whole pages of 4, 16 and 64 KiB."""
SLATE_BYTES: Final = SLATE_HEAD + 2 * MAX_MESSAGE
"""A worker's slate: a head, and a pane for each of the batches that wait at it, with room for a full answer."""
SLATE_KEPT: Final = 2**20
"""The largest answer whose memory a slate keeps for the next."""
NO_NAME: Final = 2**32 - 1
"""The name index of a task whose own cannot be read."""

OWNED_TOPICS: Final = "hardware."
"""How the topics begin that only the owners of pins publish on, where there are any."""
DATA_LANES: Final = "data:"
"""How the names of the data workers' own lanes begin,"""
DENIED_LANES: Final = "denied:"
"""and of those that stand for none, where the client may not call the task whose name follows."""
DENIED_TASKS: Final = 4096
"""Tasks of a package that may be denied, each with an error of its own,"""
DENIED_RUNS: Final = 512
"""in so many runs."""
RESERVED_LANES: Final = (DATA_LANES, DENIED_LANES)

NO_DEADLINE: Final = float("inf")
LONGEST_DEADLINE_S: Final = 1e9
"""What lies later is no deadline."""
PRIORITIES: Final = 4

BATCH_NS: Final = 1_000_000
"""Work, in ns, that one batch brings to a worker: less wakes everyone too often, more balances badly."""
BATCH_SLICES: Final = 256
"""Slices in one batch at most: each brings the head of its package."""
SLICE_NS: Final = 2 * BATCH_NS
"""How long a worker stays at a batch before it hands the rest back: estimates are wrong now and then."""
IN_FLIGHT: Final = 2
"""Batches that wait at a worker at most: one to run, one so that it need not wait for the next."""
REPEATS: Final = 2
"""How often a client sends an idempotent package again whose router was lost."""
DEATHS: Final = 2
"""How many workers may die at an idempotent task that runs, or at a chunk that was next, until that is lost."""
PACKAGE_BYTES: Final = 4096
"""What a package in flight takes beside its bytes, about,"""
RUN_BYTES: Final = 512
"""and each run of neighbouring tasks of a lane."""
NAME_BYTES: Final = 64
"""and each name in its head, beside its bytes."""
SOONEST_RETRY_S: Final = 0.01
"""How soon a client that was refused is told to come back at the soonest,"""
LATEST_RETRY_S: Final = 10.0
"""and at the latest."""
COSTS_KEPT: Final = 1024
"""Kinds of package whose cost the router remembers."""
TOPICS_KEPT: Final = 1024
"""Topics whose last value a data worker keeps,"""
LAST_BYTES: Final = 64 * 2**20
"""and the most bytes of them. What one client has published is at most half of either."""
SUBSCRIPTIONS_KEPT: Final = 2048
"""Subscriptions of all clients at a data worker; what a key, or without keys a connection, has is at most half."""
REPLAY_RATE: Final = 4 * 2**20
"""Bytes of last values in a second that a connection is given when it subscribes, and that all get with others."""
UNTAKEN_BYTES: Final = 16 * 2**20
"""Bytes of publications that subscribers have not taken, from which on the idlest of them are cut off,"""
MOST_UNTAKEN: Final = 64 * 2**20
"""and from which on nothing more is sent to anybody."""
FEED_BYTES: Final = 2**17
"""The most bytes of a value that a task publishes, about."""
UNREAD_BYTES: Final = 16 * 2**20
"""Bytes of replies that the router keeps for a client that does not read them; one reply may be larger."""
UNREAD_KEY_BYTES: Final = 4 * UNREAD_BYTES
"""And for all connections of one key,"""
UNREAD_ALL_BYTES: Final = 2**28
"""and for all clients, of which each leaves half of what is free to others,"""
UNREAD_LEAST_BYTES: Final = 2**16
"""but for so many bytes."""
UNREAD_SMALL_BYTES: Final = 2**25
"""Bytes of small replies, for one key: whoever leaves more unread is cut off."""
UNREAD_MESSAGES: Final = 16384
"""Replies that it keeps, whatever their size."""
CLIENTS_KEPT: Final = 1024
"""Clients that the router remembers although it owes them nothing."""
HANDSHAKE_RATE: Final = 50.0
"""Connections that a key, and an address of another machine, may make in a second,"""
HANDSHAKE_BURST: Final = 200
"""and at once, after a rest: a fleet comes back when the engine was started again."""
NAME_TOLD: Final = 128
"""Characters of an unknown task's name that its error repeats."""
TEXT_TOLD: Final = 4096
"""Characters of what an exception says that the client is told."""
TRACEBACK_TOLD: Final = 16384
"""Characters of its traceback."""
TURN_MESSAGES: Final = 100
"""Messages that the router takes from one side before it looks at the other."""
TURN_S: Final = 0.02
"""How long it does so at most, in s, and a message more."""
TICK_MS: Final = 50
"""How often the router looks for passed deadlines, in ms."""
LATENCY_SHIFT: Final = 10
"""Latencies are counted from 2^10 ns, about 1 µs, on, in buckets of twice the width each,"""
LATENCY_BUCKETS: Final = 27
"""of which the last begins at 2^35 ns, 34 s."""

MODULE_MARK: Final = "\0"
"""In the name of a lane's part for the tasks of one module, between the two names."""
IMPORT_TIMEOUT_S: Final = 60.0
"""How long task modules may take to load."""
KEYS_LOOK_MS: Final = 250
"""How often the engine looks whom it lets in, in ms."""

DEFAULT_ADDRESS: Final = "tcp://127.0.0.1:9000"
DEFAULT_RESPONSE_TIME: Final = 0.005
"""How often a client flushes its queue, in s, until the engine has told it."""
DEFAULT_FULL_LOAD: Final = 20
"""Queued calls that a client sends at once, until the engine has told it its own figure."""
