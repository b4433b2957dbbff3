"""The control messages between the supervisor and its processes, and how they travel. Pure.

A process sends reports, the supervisor sends orders: a tagged MessagePack array each. They travel over a socket that
keeps packets apart (SOCK_SEQPACKET), behind one byte that says whether another packet continues the message.
"""

from __future__ import annotations

from typing import Final, get_args

import msgspec

from taskengine.config.policy import Entry
from taskengine.errors import ProtocolError
from taskengine.protocol.messages import TaskInfo

PACKET_BYTES: Final = 1 << 16
"""The most bytes of a packet. A report fits into one; an order may take several."""
MAX_TAG: Final = 32
"""How many characters of an unknown message's tag are logged."""
_LAST, _MORE = b"\0", b"\1"


class _Message(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A control message; subclasses name their tags."""


# ---- reports: from a process to the supervisor


class Online(_Message, frozen=True, tag="online"):
    """The process has started and serves."""


class StartFailed(_Message, frozen=True, tag="failed"):
    """The process cannot start, and ends."""

    reason: str


class Importing(_Message, frozen=True, tag="importing"):
    """A worker begins to import a task module; "" after the last one."""

    module: str


class NotImported(_Message, frozen=True, tag="not imported"):
    """A worker could not import a task module."""

    module: str
    reason: str


class Alive(_Message, frozen=True, tag="alive"):
    """The process is alive; a router says as well whether it has answered a client."""

    has_answered: bool = False


class KillWorker(_Message, frozen=True, tag="kill worker"):
    """The router wants a worker killed."""

    worker: str


class WorkerIdle(_Message, frozen=True, tag="worker idle"):
    """A worker that was to retire has nothing to do any more."""

    worker: str


class ReloadRequested(_Message, frozen=True, tag="reload requested"):
    """A client asks for a reload of the task modules."""


# ---- orders: from the supervisor to a process


class StartedWorker(msgspec.Struct, array_like=True, frozen=True):
    """A worker as the router knows it: its name, place and process, and whether it has loaded its modules."""

    name: str
    place: int
    pid: int
    is_online: bool


class WorkersStarted(_Message, frozen=True, tag="workers started"):
    """To the router: these workers live, and will connect."""

    workers: list[StartedWorker]


class WorkerDied(_Message, frozen=True, tag="worker died"):
    """To the router: a worker is dead."""

    worker: str


class RetireWorker(_Message, frozen=True, tag="retire worker"):
    """To the router: give a worker nothing more, and report it as soon as it is idle."""

    worker: str


class TasksChanged(_Message, frozen=True, tag="tasks changed"):
    """To the router: these are the tasks from now on."""

    tasks: list[TaskInfo]


class PolicyChanged(_Message, frozen=True, tag="policy changed"):
    """To the router and the stop listener: this is the policy from now on, None for no policy."""

    policy: dict[str, Entry] | None


class ReloadBegun(_Message, frozen=True, tag="reload begun"):
    """To the router: a reload has begun."""


class ReloadEnded(_Message, frozen=True, tag="reload ended"):
    """To the router: the reload has ended; `problem` says why all is as before, "" where it is not."""

    problem: str


class RestartCounts(_Message, frozen=True, tag="restart counts"):
    """To the router: how often processes were restarted, by kind."""

    counts: dict[str, int]


class RejoinRouter(_Message, frozen=True, tag="rejoin router"):
    """To a worker: the router is a new process; connect to it."""


class OwnerStarted(_Message, frozen=True, tag="owner started"):
    """To the guardian: a process was started that owns the pins of a lane."""

    lane: str
    pid: int


class StrangersMayStop(_Message, frozen=True, tag="strangers may stop"):
    """To the guardian: whether other users may stop the machine."""

    may: bool


class StopProcess(_Message, frozen=True, tag="stop"):
    """To every process: stop. The router may take `drain` s to finish what it has."""

    drain: float = 0.0


class UnknownMessage(msgspec.Struct, frozen=True):
    """A message whose tag this version does not know; to be logged and ignored."""

    tag: str


Report = Online | StartFailed | Importing | NotImported | Alive | KillWorker | WorkerIdle | ReloadRequested
Order = (
    WorkersStarted
    | WorkerDied
    | RetireWorker
    | TasksChanged
    | PolicyChanged
    | ReloadBegun
    | ReloadEnded
    | RestartCounts
    | RejoinRouter
    | OwnerStarted
    | StrangersMayStop
    | StopProcess
)
COMMON: Final[frozenset[type[Report]]] = frozenset({Online, StartFailed})
"""The reports that every process may send."""
LOADER_REPORTS: Final[frozenset[type[Report]]] = COMMON | {Importing, NotImported}
"""The reports of processes that load task modules."""
ROUTER_REPORTS: Final[frozenset[type[Report]]] = COMMON | {Alive, KillWorker, WorkerIdle, ReloadRequested}
GUARDIAN_REPORTS: Final[frozenset[type[Report]]] = COMMON | {Alive}

_encode = msgspec.msgpack.Encoder().encode
_decode_report = msgspec.msgpack.Decoder(Report).decode
_decode_order = msgspec.msgpack.Decoder(Order).decode
_decode_any = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_tag = msgspec.msgpack.Decoder(str).decode
_REPORT_TAGS: Final = frozenset(each.__struct_config__.tag for each in get_args(Report))
_ORDER_TAGS: Final = frozenset(each.__struct_config__.tag for each in get_args(Order))
_UNREADABLE = msgspec.MsgspecError, UnicodeDecodeError, RecursionError


def packets(message: Report | Order) -> list[bytes]:
    """Encode a message as the packets that carry it."""
    body, room = _encode(message), PACKET_BYTES - 1
    pieces = [body[at : at + room] for at in range(0, len(body), room)]
    return [_MORE + piece for piece in pieces[:-1]] + [_LAST + pieces[-1]]


def read_report(packet: bytes, known: frozenset[type[Report]] = COMMON) -> Report | UnknownMessage:
    """Read a report of a process that may send those in `known`.

    Raises ProtocolError for bytes that are no message: a task can write into every descriptor of its process.
    """
    if len(packet) > PACKET_BYTES or packet[:1] != _LAST:
        raise ProtocolError(f"a report has at most {PACKET_BYTES} bytes, in one packet")
    body = packet[1:]
    try:
        report = _decode_report(body)
    except _UNREADABLE as error:
        return UnknownMessage(_unknown_tag(body, _REPORT_TAGS, error))
    if type(report) not in known:
        raise ProtocolError(f"a report that this process may not send: {type(report).__name__}")
    return report


class OrderReader:
    """Joins packets to orders."""

    def __init__(self) -> None:
        self._body = bytearray()

    def read(self, packet: bytes) -> Order | UnknownMessage | None:
        """Read the order that a packet ends; None where more packets follow. Raises ProtocolError."""
        self._body += packet[1:]
        if packet[:1] == _MORE:
            return None
        body = bytes(self._body)
        self._body.clear()
        try:
            return _decode_order(body)
        except _UNREADABLE as error:
            return UnknownMessage(_unknown_tag(body, _ORDER_TAGS, error))


def _unknown_tag(body: bytes, known: frozenset[str | int | None], error: Exception) -> str:
    """Return the tag of a message that is well formed and not known; raise ProtocolError for anything else."""
    try:
        tag = _decode_tag(_decode_any(body)[0])
    except (*_UNREADABLE, IndexError):
        tag = None
    if tag is None or tag in known:
        raise ProtocolError(f"a control message that cannot be read: {error}") from None
    return tag[:MAX_TAG]
