"""Who called the task that runs, and what it may use: for task functions."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar

from taskengine.config.policy import Policy, Rights
from taskengine.errors import NotAllowed
from taskengine.protocol.messages import NOWHERE, Origin

if TYPE_CHECKING:
    from taskengine._fastpath import ProgressPage


class _Rules:
    """Of this process: the engine's policy."""

    policy: Policy | None = None
    rights: ClassVar[dict[str, Rights]] = {}
    """What those who have called may do."""
    page: ProgressPage | None = None
    """Where the worker notes which task it is at."""


_NONE = Rights(())
_current: ContextVar[Origin] = ContextVar("origin", default=NOWHERE)
coroutine_name: ContextVar[str] = ContextVar("coroutine_name", default="")
"""The name of the `async def` task that runs, or that has left on the event loop what runs."""
coroutine_position: ContextVar[int | None] = ContextVar("coroutine_position", default=None)
"""The position of the task that runs, where others run beside it."""


def obey(policy: Policy | None, page: ProgressPage | None = None) -> None:
    """This process runs tasks under the policy, and notes in the progress page which one."""
    _Rules.policy = policy
    _Rules.rights.clear()
    _Rules.page = page


def begin(origin: Origin) -> None:
    """The tasks that this thread runs from here on came from there."""
    _current.set(origin)


def _rights(policy: Policy, name: str) -> Rights:
    """Those of a client, of which there are as many as keys."""
    rights = _Rules.rights.get(name)
    if rights is None:
        rights = _Rules.rights[name] = policy.rights(name)
    return rights


def caller() -> str:
    """The name of the client that called the task which runs, as its key says; "" where clients show no keys.

    A thread that a task starts has none, unless it runs in the task's context (`contextvars.copy_context`).
    """
    return _current.get().client


def caller_id() -> bytes:
    """The connection by which the call came: two clients never have the same, one that connects anew gets another.

    b"" where no task runs.
    """
    return _current.get().connection


def origin() -> Origin:
    """Where the call of the task that runs came from, and when it was sent and received."""
    return _current.get()


def position() -> int:
    """The position of the task that runs in its package, from 0; 0 where no worker runs it."""
    beside_others = coroutine_position.get()
    if beside_others is not None:
        return beside_others
    return 0 if _Rules.page is None else _Rules.page.position


def may_call(task: str, lane: str) -> bool:
    """Return whether the client that called the task which runs may call another one in that lane."""
    policy = _Rules.policy
    return policy is None or _rights_of(policy, _current.get()).may_call(task, lane)


def check_device(device: str) -> None:
    """Keep the task from using a device that its caller may not. Raises NotAllowed, which is what the client gets."""
    policy = _Rules.policy
    if policy is None:
        return
    origin = _current.get()
    if not _rights_of(policy, origin).may_use(device):
        raise NotAllowed(f"the engine's policy does not let client {origin.client!r} use device {device}")


def _rights_of(policy: Policy, origin: Origin) -> Rights:
    """Those of whoever called; a thread that a task has started has none."""
    return _NONE if origin is NOWHERE else _rights(policy, origin.client)
