"""Resolves futures, whatever their callbacks raise; `client/transport.py` has the rules."""

from __future__ import annotations

import threading
from collections import deque

from taskengine.client.replies import Outcome, settle


def resolve(outcomes: deque[Outcome]) -> None:
    """Resolve all futures whose outcome is known, whatever their callbacks raise."""
    interrupt: BaseException | None = None
    while outcomes:
        try:
            settle(outcomes)
        except BaseException as error:
            if threading.current_thread() is not threading.main_thread():
                report(error)
            elif interrupt is None:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def report(error: BaseException) -> None:
    """Print an error that no code can catch, as Python does when it ends a thread."""
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    )
