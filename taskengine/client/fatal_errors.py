"""Errors that no code can catch."""

from __future__ import annotations

import threading


def report(error: BaseException) -> None:
    """Print an error as Python does when it ends a thread."""
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    )
