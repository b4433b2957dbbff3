"""Reports of progress at a client: to the futures of their tasks, and to the functions that want to hear of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from taskengine import _fastpath
from taskengine.client.task_future import TaskFuture, report
from taskengine.errors import ProtocolError
from taskengine.protocol.messages import PartialReply
from taskengine.protocol.progress import Progress, as_reports

Listener = Callable[[Progress], object]
Announcement = tuple[Callable[[Any], object], Any]
"""A function that is to be called, and what it is to be told."""


def take_reports(
    reply: PartialReply, body: bytes, futures: Sequence[Future[Any]], listener: Listener | None, *, each: bool
) -> list[Announcement]:
    """Note the reports of a reply at their futures; return whom to tell. Raises ProtocolError for a malformed reply.

    With `each` the tasks have futures of their own, and their places in the package mean nothing to the caller.
    """
    announcements: list[Announcement] = []
    for said in as_reports(_fastpath.unpack(body, reply.count, _no_error)):
        progress = said
        if each:
            if said.position >= len(futures):
                raise ProtocolError(f"a report on task {said.position}, and {len(futures)} were sent")
            progress = said._replace(position=0)
            future = futures[said.position]
            if isinstance(future, TaskFuture):
                announcements += [(heard_by, progress) for heard_by in future.hear(progress)]
        if listener is not None:
            announcements.append((listener, progress))
    return announcements


def announce(announcements: deque[Announcement]) -> None:
    """Tell all who want to know, in order; print what they raise, but for what may be a signal's."""
    while announcements:
        tell, what = announcements.popleft()
        try:
            tell(what)
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise
            report(error)


def _no_error(data: bytes) -> Any:
    raise ProtocolError("a report of progress is no error")
