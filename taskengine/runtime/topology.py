"""The addresses and memory by which the processes of an engine find and know each other."""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence

import msgspec

from taskengine._fastpath import ProgressPage
from taskengine.broker.workers import UnwantedTasks
from taskengine.config.machine import Machine
from taskengine.errors import ProtocolError
from taskengine.protocol.credit import Grant
from taskengine.registry.survey import Plan
from taskengine.runtime.feed import PublicationPipe
from taskengine.security.credentials import Credentials

HELLO = b"HELLO"
HEARTBEAT = b"HEARTBEAT"
"""The message that router and workers send when they have nothing else to send."""

CANCEL = b"CANCEL"
"""The first frame of the message by which the router has a worker cancel tasks that run."""
ANSWER = b"ANSWER"
"""The first frame of an answer in a concurrent lane; the batch's number, in 8 bytes, and the answer follow."""
STREAM = b"STREAM"
"""The first frame of a value of a stream; job and number, in 8 bytes each, and the value follow."""
PROGRESS = b"PROGRESS"
"""The first frame of a report of progress; job and position, in 8 bytes each, and the report follow."""
CREDIT = b"CREDIT"
"""The first frame of the message by which the router lets a stream go on."""


class WorkerHello(msgspec.Struct, array_like=True, frozen=True):
    """A worker's first message: its name, lane, place and process."""

    name: str
    lane: str
    place: int
    pid: int
    missing: list[str] = []
    """The modules that it could not load, whose tasks others run."""
    cancels: bool = False
    """Whether it can cancel a task that runs."""


class Topology(msgspec.Struct, frozen=True):
    """The addresses and memory by which the processes of an engine find and know each other.

    Workers connect to the router at `address`. They prove that they know the `token`, which is new with each engine and
    in no file, and that they are the process that they name: another process that overhears a hello cannot repeat it.
    With `security` the sockets are encrypted. Each worker has a place; `pages` has the progress page of each place.
    Publications of tasks go to the data workers by the `feeds`. Some lanes have pins of the `machine`. The `plan` says
    which modules each worker loads.
    """

    address: str
    token: bytes
    security: Credentials | None
    pages: list[ProgressPage] = []
    feeds: list[PublicationPipe] = []
    machine: Machine | None = None
    plan: Plan = msgspec.field(default_factory=Plan)

    def hello(
        self, name: str, lane: str, place: int, missing: Sequence[str] = (), *, cancels: bool = False
    ) -> list[bytes]:
        """Return the first message of a worker."""
        hello = msgspec.msgpack.encode(WorkerHello(name, lane, place, os.getpid(), list(missing), cancels))
        return [HELLO, self._proof(hello), hello]

    def read_hello(self, proof: bytes, hello: bytes, peer: int) -> WorkerHello:
        """Return the hello of a worker from the parts after HELLO. `peer` is the process that sent it, 0 if not known.

        Raises ProtocolError for a hello that is malformed, or that another process has sent.
        """
        if not hmac.compare_digest(proof, self._proof(hello)):
            raise ProtocolError("a stranger says that it is a worker")
        try:
            read = msgspec.msgpack.decode(hello, type=WorkerHello)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"a hello that is none: {error}") from None
        if read.pid != peer and (peer or self.address.startswith("ipc:")):
            raise ProtocolError(f"process {peer} says that it is {read.name}, process {read.pid}")
        return read

    @staticmethod
    def cancel_frames(tasks: UnwantedTasks) -> list[bytes]:
        """Return the message that has a worker cancel these tasks."""
        return [CANCEL, msgspec.msgpack.encode(tasks)]

    @staticmethod
    def read_cancel(said: bytes) -> UnwantedTasks:
        """Return the tasks of a message of `cancel_frames`; the router is trusted."""
        return msgspec.msgpack.decode(said, type=UnwantedTasks)

    @staticmethod
    def stream_frames(job: int, number: int, body: bytes) -> list[bytes]:
        """Return the message of a value of a stream; the first one has the number 0."""
        return [STREAM, job.to_bytes(8, "little") + number.to_bytes(8, "little"), body]

    @staticmethod
    def progress_frames(job: int, position: int, report: bytes) -> list[bytes]:
        """Return the message of a report on the task at a position of a job."""
        return [PROGRESS, job.to_bytes(8, "little") + position.to_bytes(8, "little"), report]

    @staticmethod
    def read_stream(said: bytes) -> tuple[int, int]:
        """Return job and number of a message of `stream_frames`, or `progress_frames`. Raises ProtocolError."""
        if len(said) != 16:
            raise ProtocolError(f"a value of a stream, or a report, has 16 bytes before it, not {len(said)}")
        return int.from_bytes(said[:8], "little"), int.from_bytes(said[8:], "little")

    @staticmethod
    def credit_frames(job: int, grant: Grant) -> list[bytes]:
        """Return the message that lets a stream send so much in all."""
        return [CREDIT, msgspec.msgpack.encode((job, grant))]

    @staticmethod
    def read_credit(said: bytes) -> tuple[int, Grant]:
        """Return job and credit of a message of `credit_frames`; the router is trusted."""
        return msgspec.msgpack.decode(said, type=tuple[int, Grant])

    def _proof(self, hello: bytes) -> bytes:
        return hmac.digest(self.token, hello, "sha256")
