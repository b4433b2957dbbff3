"""What a board says when it cannot be had, or does not answer."""

from __future__ import annotations


class BoardError(OSError):
    """A board cannot be opened, or does not answer; the text says which, where and why."""


class NotCarriedOut(BoardError):
    """A board was read back, and is not what it was told, although it had taken that."""


class BoardInUse(BoardError):
    """Another process has a board, by the file at `path`."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text)
        self.path = path
