"""Who called the task that runs, and what it may use: for task functions."""

from __future__ import annotations

from contextvars import ContextVar
from typing import ClassVar, NamedTuple

from taskengine.errors import NotAllowed
from taskengine.policy import Policy, Rights


class _Rules:
    """Of this process: the engine's policy."""

    policy: Policy | None = None
    rights: ClassVar[dict[str, Rights]] = {}
    """What those who have called may do."""


class _Caller(NamedTuple):
    """A client: its name, its connection, what it may do."""

    name: str
    connection: bytes
    rights: Rights


_NOBODY = _Caller("", b"", Rights(()))
_current: ContextVar[_Caller] = ContextVar("caller", default=_NOBODY)


def obey(policy: Policy | None) -> None:
    """This process runs tasks under the policy."""
    _Rules.policy = policy
    _Rules.rights.clear()


def begin(name: str, connection: bytes) -> None:
    """The tasks that this thread runs from here on are of the client `name`, and came by this connection."""
    if (name, connection) != _current.get()[:2]:
        _current.set(_Caller(name, connection, _NOBODY.rights if _Rules.policy is None else _rights(name)))


def _rights(name: str) -> Rights:
    """Those of a client, of which there are as many as keys."""
    if name not in _Rules.rights and _Rules.policy is not None:
        _Rules.rights[name] = _Rules.policy.rights(name)
    return _Rules.rights[name]


def caller() -> str:
    """The name of the client that called the task which runs, as its key says; "" where clients show no keys.

    A thread that a task starts has none, unless it runs in the task's context (`contextvars.copy_context`).
    """
    return _current.get().name


def caller_id() -> bytes:
    """The connection by which the call came: two clients never have the same, one that connects anew gets another.

    b"" where no task runs.
    """
    return _current.get().connection


def check_device(device: str) -> None:
    """Keep the task from using a device that its caller may not. Raises NotAllowed, which is what the client gets."""
    if _Rules.policy is None:
        return
    name, _, rights = _current.get()
    if not rights.may_use(device):
        raise NotAllowed(f"the engine's policy does not let client {name!r} use device {device}")
