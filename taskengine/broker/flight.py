"""The broker's record of a package from its acceptance to its last answer. Pure."""

from __future__ import annotations

from taskengine.broker.cancellation import Cancellation
from taskengine.broker.chunking import Chunks
from taskengine.broker.losses import Losses

NO_CHUNKS = Chunks()
"""The cut of what is not cut yet."""


class Flight:
    """A package on its way. Only the broker and its parts write here."""

    __slots__ = ("_losses", "accepted_ns", "cancellation", "chunks", "job", "tries")

    def __init__(self) -> None:
        self.job = 0
        """The number by which the broker and the workers know the package; later packages have higher ones."""
        self.accepted_ns = 0
        """The time when it was accepted, in ns, monotonic; `Counters` writes it."""
        self.chunks = NO_CHUNKS
        """Its cut, which is made when it is accepted."""
        self.cancellation = Cancellation()
        """Its tasks that are not to start any more."""
        self._losses: Losses | None = None
        self.tries: dict[int, int] | None = None
        """How often each task ran again after an error of its own, by position; None where none did."""

    @property
    def losses(self) -> Losses:
        """How often its tasks were lost with their workers; most packages have none."""
        if self._losses is None:
            self._losses = Losses()
        return self._losses
