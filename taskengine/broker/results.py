"""The results of a package, as far as they are known. Pure."""

from __future__ import annotations

from taskengine._fastpath import Assembly


class Results(Assembly):
    """The results of a package's tasks so far. Only `broker.in_flight.InFlight` adds to them.

    The package's `answer` makes the reply of them.
    """

    failed = 0
    """How many tasks ended in an error."""
    worker = ""
    """The worker that has answered last."""

    @property
    def is_begun(self) -> bool:
        """Return whether the client has got a part of a result, so that its task cannot run again."""
        return False
