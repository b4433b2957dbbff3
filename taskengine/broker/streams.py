"""The values of a task that streams, between its worker and its client. Pure."""

from __future__ import annotations

from typing import NamedTuple

from taskengine.broker.results import Results
from taskengine.errors import ProtocolError, TaskEngineError
from taskengine.protocol.credit import Credit, Grant


class Values(NamedTuple):
    """So many values of a stream, the first of which has the number `first`, from 0."""

    first: int
    number: int
    bodies: list[bytes]

    @property
    def size(self) -> int:
        """The bytes of the values."""
        return sum(map(len, self.bodies))


class StreamResults(Results):
    """The result of a package whose only task streams, and its values that are not sent.

    `grant` is the credit with which its client begins.
    """

    def __init__(self, grant: Grant) -> None:
        self.credit = Credit(grant)
        """The values that have come from the worker, and the credit for more."""
        self.source: str | None = None
        """The worker that runs the task, once a value has come from it."""
        self.reason: TaskEngineError | None = None
        """Why the client gets no more values, if the engine has ended the stream."""
        self.has_all = False
        """Whether the worker has said that all values have come."""
        self._unsent: list[bytes] = []
        self._sent = 0

    def __new__(cls, grant: Grant) -> StreamResults:
        return super().__new__(cls, 1)

    @property
    def is_begun(self) -> bool:
        return self.credit.values > 0

    def add(self, first: int, body: bytes) -> None:
        """Take a value from the worker. Raises ProtocolError for one that is not the next, or not allowed."""
        if first != self.credit.values or not self.credit.may_send():
            raise ProtocolError(f"value {first} of a stream of which {self.credit.values} have come and no more may")
        self.credit.send(1, len(body))
        self._unsent.append(body)

    def close(self, number: int) -> None:
        """Note that the worker has sent all `number` values. Raises ProtocolError where others have come."""
        if number != self.credit.values:
            raise ProtocolError(f"the end of a stream of {number} values, of which {self.credit.values} have come")
        self.has_all = True

    def take(self) -> Values:
        """Return the values that are not sent; they count as sent."""
        values = Values(self._sent, len(self._unsent), self._unsent)
        self._sent += values.number
        self._unsent = []
        return values
