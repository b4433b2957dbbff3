"""Tells task functions which client called them, and what that client may use."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar

from taskengine.config.policy import Policy, Rights
from taskengine.errors import NotAllowed
from taskengine.protocol.messages import NOWHERE, Origin

if TYPE_CHECKING:
    from taskengine._fastpath import ProgressPage


class _Rules:
    """The engine's policy in this process."""

    policy: Policy | None = None
    rights: ClassVar[dict[str, Rights]] = {}
    """The rights of clients that have called, by name."""
    page: ProgressPage | None = None
    """The progress page, on which the worker notes the current task."""


_NONE = Rights(())
_current: ContextVar[Origin] = ContextVar("origin", default=NOWHERE)
coroutine_name: ContextVar[str] = ContextVar("coroutine_name", default="")
"""The name of the `async def` task that runs, or that has left on the event loop what runs."""
coroutine_position: ContextVar[int | None] = ContextVar("coroutine_position", default=None)
"""The position of the task that runs, where others run beside it."""


def set_policy(policy: Policy | None, page: ProgressPage | None = None) -> None:
    """Set the policy under which this process runs tasks, and the page on which it notes the current one."""
    _Rules.policy = policy
    _Rules.rights.clear()
    _Rules.page = page


def set_origin(origin: Origin) -> None:
    """Set where the tasks come from that this thread runs from here on."""
    _current.set(origin)


def _rights(policy: Policy, name: str) -> Rights:
    """Return the rights of a client; there are as many clients as keys."""
    rights = _Rules.rights.get(name)
    if rights is None:
        rights = _Rules.rights[name] = policy.rights(name)
    return rights


def caller() -> str:
    """Return the name of the client that called the current task, as its key says; "" if clients show no keys.

    It is "" too in a thread that a task starts, unless that runs in the task's context (`contextvars.copy_context`).
    """
    return _current.get().client


def caller_id() -> bytes:
    """Return the id of the connection that the call came by, b"" if no task runs.

    No two clients have the same id, and a client that connects again gets another.
    """
    return _current.get().connection


def origin() -> Origin:
    """Return where the call of the current task came from, and when it was sent and received."""
    return _current.get()


def position() -> int:
    """Return the position of the current task in its package, from 0; 0 if no worker runs it."""
    beside_others = coroutine_position.get()
    if beside_others is not None:
        return beside_others
    return 0 if _Rules.page is None else _Rules.page.position


def may_call(task: str, lane: str) -> bool:
    """Return whether the client that called the current task may call another task, in that lane."""
    policy = _Rules.policy
    return policy is None or _rights_of(policy, _current.get()).may_call(task, lane)


def check_device(device: str) -> None:
    """Raise NotAllowed, which the client gets, if the caller of the current task may not use a device."""
    policy = _Rules.policy
    if policy is None:
        return
    origin = _current.get()
    if not _rights_of(policy, origin).may_use(device):
        raise NotAllowed(f"the engine's policy does not let client {origin.client!r} use device {device}")


def _rights_of(policy: Policy, origin: Origin) -> Rights:
    """Return the rights of the caller; a thread that a task has started has none."""
    return _NONE if origin is NOWHERE else _rights(policy, origin.client)
