"""Errors for tasks that end without a result of their own. Pure."""

from __future__ import annotations

from taskengine.errors import NotAllowed, TaskFailed, TaskTimeout, WorkerLost, shortened
from taskengine.protocol.limits import DENIED_RUNS, DENIED_TASKS, MAX_NAME_LENGTH


def lost(worker: str) -> WorkerLost:
    return WorkerLost(f"worker {worker} died with this task in its hands", worker=worker)


def owner_died(lane: str, worker: str) -> WorkerLost:
    text = f"worker {worker}, which had the pins of lane {lane}, died before this task could start"
    return WorkerLost(f"{text}: tasks that waited for it do not run", worker=worker)


def check_denied(denied: list[int]) -> None:
    """Raise NotAllowed where the runs `denied` are too many to answer each denied task with an error of its own."""
    if sum(denied) > DENIED_TASKS or len(denied) > DENIED_RUNS:
        raise NotAllowed(f"the engine's policy does not let this client call {sum(denied)} tasks of this package")


def denied(task: str) -> NotAllowed:
    return NotAllowed(f"the engine's policy does not let this client call {shortened(task, MAX_NAME_LENGTH)}")


def no_room() -> TaskFailed:
    return TaskFailed(
        "the task has run, and the engine has no room for its result among others that wait (QUEUE_BYTES)"
    )


def too_late() -> TaskTimeout:
    return TaskTimeout("the deadline passed before the task could start", seconds=None)
