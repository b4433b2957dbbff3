"""How a package is cut: how many chunks, and which tasks are in each. Pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple


class Cut(NamedTuple):
    """`tasks` tasks spread over `chunks` chunks, so that sizes differ by at most one and the larger come first."""

    tasks: int
    chunks: int

    def bounds(self, part: int) -> tuple[int, int]:
        """First and stop position of the tasks in chunk `part` (from 1)."""
        size, larger = divmod(self.tasks, self.chunks)
        first = (part - 1) * size + min(part - 1, larger)
        return first, first + size + (part <= larger)


def cut(tasks: int, size: int | None, workers: int) -> Cut:
    """Cut a package of `tasks` tasks for `workers` workers.

    `size` is CHUNKING_SIZE, the most tasks in a chunk, or None where chunking is off and the package stays whole.
    The number of chunks is rounded up to a multiple of the workers, but there is never an empty chunk.
    """
    if size is None or tasks <= 1:
        return Cut(tasks, min(tasks, 1))
    chunks = -(-tasks // size)
    chunks = -(-chunks // workers) * workers
    return Cut(tasks, min(chunks, tasks))
