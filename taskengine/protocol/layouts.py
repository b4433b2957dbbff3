"""The constants and layouts of both wires, written once. docs/protocol.md describes them in prose.

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
In a concurrent lane a batch is one task, and its answer follows the batch's number, in any order.
A task that raised and may be run again (`retries`) has an entry of its own, whose `failed` has the bit MAY_RETRY.
The worker keeps its account of the batch under the batch's number in its progress page, which `_progress.pxi` lays out.

All integers are little-endian, nothing is padded.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from taskengine.protocol.limits import MAX_MESSAGE

VERSION: Final = 2
LEGACY_VERSION: Final = 0.1
MAGIC: Final = b"TE\x02"
"""The first bytes of a 0.2 message; a 0.1 message begins with a JSON object."""
ERROR_EXT: Final = 1
"""The MessagePack extension code of an error entry; reserved, so no value of a task may use it."""
ARRAY_EXT: Final = 2
"""The MessagePack extension code of a numpy array; taskengine.protocol.arrays has its layout."""
VALUES_FLAG: Final = 0x80
"""Added to the reply mode of a section whose client takes, and may send, the extensions of `ValueExt`."""


class ValueExt(IntEnum):
    """The MessagePack extension codes of Python's other values; taskengine.protocol.values has their layouts.

    They are sent only to a side that has named the capability `values`.
    """

    TUPLE = 3
    SET = 4
    FROZENSET = 5
    INT = 6
    COMPLEX = 7
    DECIMAL = 8
    UUID = 9
    DATETIME = 10
    DATE = 11
    TIME = 12
    TIMEDELTA = 13


RESERVED_EXTS: Final = range(min(ValueExt), 16)
"""The extension codes that no value of a program's own may have for such a side."""


class Format(IntEnum):
    """The content of a section."""

    PACKED = 0
    """Tasks of wire 0.2; a slice is answered by one piece of the body of a 0.2 reply."""
    LEGACY_JSON = 1
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
MAY_RETRY: Final = 2**31
"""In the count of failed tasks of an entry, the bit of one whose only task raised, and may be run again."""
PROGRESS_HEAD: Final = 2**16
"""Bytes of a progress page before its slots, which are in whole pages of 4, 16 and 64 KiB."""
PROGRESS_BYTES: Final = PROGRESS_HEAD + 2 * MAX_MESSAGE
"""A worker's progress page: a head, and a slot for each of the batches that wait at it, with room for a full answer."""
MAX_ANSWER_KEPT: Final = 2**20
"""The largest answer whose memory a progress page keeps for the next."""
NO_NAME: Final = 2**32 - 1
"""The name index of a task whose own cannot be read."""
OWNED_TOPICS: Final = "hardware."
"""The beginning of the topics that only the owners of pins may publish on, if there are any."""
ENGINE_TOPICS: Final = "taskengine."
"""The beginning of the topics on which the engine publishes what it does; nobody else publishes there."""
COMMANDS_TOPIC: Final = "taskengine.commands"
"""The topic of calls that have ended, with RECORD_COMMANDS."""
SCHEDULE_TOPICS: Final = "schedule."
"""The beginning of the topics on which the results of periodic tasks are published, each by its name."""
SCHEDULE_CLIENT: Final = "schedule"
"""The name, in the policy and in origins, of the engine's own client that calls periodic tasks. No key has it."""
DATA_LANES: Final = "data:"
"""The beginning of the names of the data workers' own lanes,"""
DENIED_LANES: Final = "denied:"
"""and of lanes that stand for no lane, because the client may not call the task whose name follows."""
RESERVED_LANES: Final = (DATA_LANES, DENIED_LANES)
NO_DEADLINE: Final = float("inf")
IN_FLIGHT: Final = 2
"""The most batches that wait at a worker: one to run, one so that it need not wait for the next."""
MAX_OFFERED: Final = 2**16 - 1
"""The most tasks of a batch that a worker claims before it runs them, so that the others can be taken back."""
STRIDE_NS: Final = 100_000
"""A worker claims tasks that take about so long together, by what the tasks before them took."""
LATENCY_SHIFT: Final = 10
"""Latencies are counted from 2^10 ns, about 1 µs, on, in buckets of twice the width each,"""
LATENCY_BUCKETS: Final = 27
"""of which the last begins at 2^35 ns, 34 s."""
MODULE_MARK: Final = "\0"
"""In the name of a lane's part for the tasks of one module, the mark between the two names."""
