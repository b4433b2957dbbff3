"""Answers requests about the engine itself, or about packages in flight: one method for each kind of request."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from taskengine.broker.broker import Broker
from taskengine.config.settings import Settings
from taskengine.errors import Overloaded, ProtocolError, TaskFailed
from taskengine.protocol.layouts import VERSION
from taskengine.protocol.messages import (
    NO_SERIAL,
    Info,
    Request,
    RequestKind,
    ScheduleState,
    SourceStats,
    Stats,
    TaskInfo,
    decode_cancel,
)
from taskengine.protocol.release import release
from taskengine.router.emergency import LateAnswer, Route
from taskengine.router.permissions import KnownClient
from taskengine.runtime.control import ReloadRequested, Report
from taskengine.security.audit import Audit

RELOADS_ASKED = 256
"""Requests for a reload that wait for the next one."""
CAPABILITIES = ["clock", "stop", "each", "values", "streams", "progress", "publications"]
"""What this engine can beyond version 0.1.0; docs/wire-growth.md says what each means."""
LATER: Final = object()
"""In place of an answer: it comes when the reload has ended."""
Asked = tuple[Route, Request, Sequence[bytes], KnownClient]
"""The way back, the head, all frames, and the client."""


class Questions:
    """Answers questions about `broker` and the engine.

    `stop_tasks` are the tasks that stop something, `unread` returns how many bytes of replies wait, and `tell` tells
    the supervisor. `restarts` are as the supervisor counts them. `overruns` are, of each data worker, the sources that
    take longer than their period. `schedules` returns how the periodic tasks stand, by their names.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        stop_tasks: frozenset[str],
        audit: Audit,
        tell: Callable[[Report], None],
        unread: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._stop_tasks = stop_tasks
        self._audit = audit
        self._tell = tell
        self._unread = unread
        self._tasks: list[TaskInfo] = []
        self._reloads_asked: list[tuple[Route, int]] = []
        self._reloads_begun: list[tuple[Route, int]] = []
        self.restarts: dict[str, int] = {}
        self.overruns: dict[str, list[SourceStats]] = {}
        self.schedules: Callable[[], dict[str, ScheduleState]] = dict
        self._answers: dict[RequestKind, Callable[[Asked], object]] = {
            RequestKind.INFO: self._info,
            RequestKind.TASKS: self._list_tasks,
            RequestKind.STATS: self._stats,
            RequestKind.PROGRESS: self._progress,
            RequestKind.CANCEL: self._cancel,
            RequestKind.RELOAD: self._reload,
        }

    def learn(self, tasks: list[TaskInfo]) -> None:
        """Replace the list of tasks."""
        self._tasks = tasks

    def on(self, kind: RequestKind, answer: Callable[[Asked], object]) -> None:
        """Have `answer` called for requests of another kind."""
        self._answers[kind] = answer

    def answer(self, asked: Asked) -> object:
        """Return the answer, or LATER. Raises ProtocolError, Overloaded."""
        answer = self._answers.get(asked[1].kind)
        if answer is None:
            raise ProtocolError(f"kind {asked[1].kind} is unknown")
        return answer(asked)

    def begin_reload(self) -> None:
        """Note that those who have asked for a reload so far are told how the one that begins goes."""
        self._reloads_begun, self._reloads_asked = self._reloads_asked, []

    def end_reload(self, problem: str) -> list[LateAnswer]:
        """Return the answers to them, with a `problem`, or "" where there is none."""
        error = TaskFailed(problem, type="TaskModuleError") if problem else None
        answers = [LateAnswer(route, serial, error) for route, serial in self._reloads_begun]
        self._reloads_begun = []
        return answers

    def _info(self, asked: Asked) -> Info:
        settings, client = self._settings, asked[3]
        return Info(
            version=VERSION,
            response_time=settings.response_time,
            chunking_size=settings.chunking_size,
            task_workers=settings.task_workers,
            data_addresses=settings.data_addresses(),
            pid=os.getpid(),
            capabilities=CAPABILITIES,
            stop_tasks=sorted(filter(client.may_call, self._stop_tasks)),
            stop_address=settings.stop_address,
            release=release(),
        )

    def _list_tasks(self, asked: Asked) -> list[TaskInfo]:
        """Return the tasks that the client may call, and how those stand that are periodic or run again."""
        states, retried = self.schedules(), self._broker.retries.retried
        return [_as_it_stands(task, states, retried[task.name]) for task in asked[3].tasks(self._tasks)]

    def _stats(self, asked: Asked) -> Stats:
        """Return all counters; of sources and periodic tasks only those that the client may know of."""
        stats = self._broker.stats(self.restarts, self._unread())
        sources = (source for told in self.overruns.values() for source in told)
        return msgspec.structs.replace(
            stats,
            sources=[each for each in sources if asked[3].may_subscribe(each.topic)],
            schedules=[state for name, state in self.schedules().items() if asked[3].may_call(name)],
        )

    def _progress(self, asked: Asked) -> list[tuple[str, int, int]]:
        return self._broker.serials.progress(asked[0])

    def _cancel(self, asked: Asked) -> None:
        route, _, frames, _ = asked
        wanted = decode_cancel(frames)
        serial = None if wanted.serial == NO_SERIAL else str(wanted.serial)
        self._broker.withdrawals.cancel(route[0], serial, wanted.positions)

    def _reload(self, asked: Asked) -> object:
        route, request, _, client = asked
        if len(self._reloads_asked) >= RELOADS_ASKED:
            raise Overloaded("too many have asked for a reload that has not begun", retry_after=None)
        self._audit.note("called", client=client.name, call="RELOAD")
        self._reloads_asked.append((route, request.serial))
        if len(self._reloads_asked) == 1:
            self._tell(ReloadRequested())
        return LATER


def _as_it_stands(task: TaskInfo, states: Mapping[str, ScheduleState], retried: int) -> TaskInfo:
    if task.retry is not None and retried:
        task = msgspec.structs.replace(task, retry=msgspec.structs.replace(task.retry, retried=retried))
    return task if task.schedule is None else msgspec.structs.replace(task, schedule=states.get(task.name))
